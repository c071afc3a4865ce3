"""What is submitted: one short file per job: read settings, call one function, exit code."""
