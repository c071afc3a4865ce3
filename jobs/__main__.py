"""`python -m jobs COMMAND …` is `simswap COMMAND …`."""

import sys

from jobs.cli import main

sys.exit(main())
