"""What pixels mean: where faces are, whose they are, and how they are cut out and put back."""
