"""`simswap redrive OUTPUT reasons=[timed_out]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import RedriveConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Do inputs that failed again, by the settings that the job had, or others that decide no result."""
    (output,), overrides = split_words(words, ["OUTPUT"])
    own = [word for word in overrides if word.startswith("reasons=")]
    settings = load_settings(RedriveConfig, None, own)

    from pipeline.runners.upkeep import redrive

    return redrive(output, settings, [word for word in overrides if word not in own], dry_run)


if __name__ == "__main__":
    sys.exit(main(["redrive", *sys.argv[1:]]))
