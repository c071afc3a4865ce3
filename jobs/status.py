"""`simswap status OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import StatusConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """How a swap stands, while it runs or after."""
    (output,), overrides = split_words(words, ["OUTPUT"])
    settings = load_settings(StatusConfig, None, overrides)

    from pipeline.runners.upkeep import job_status

    return job_status(output, settings)


if __name__ == "__main__":
    sys.exit(main(["status", *sys.argv[1:]]))
