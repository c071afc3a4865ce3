"""`simswap gc OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import GcConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Remove what killed jobs have left in an output."""
    (output,), overrides = split_words(words, ["OUTPUT"])
    settings = load_settings(GcConfig, None, overrides)

    from pipeline.runners.upkeep import collect_garbage

    return collect_garbage(output, settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["gc", *sys.argv[1:]]))
