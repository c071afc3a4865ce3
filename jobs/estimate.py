"""`simswap estimate OUTPUT items=N [hours=H] [key=value ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import EstimateConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """How long a swap of many inputs takes, from a trial of some."""
    (output,), overrides = split_words(words, ["OUTPUT"])
    settings = load_settings(EstimateConfig, None, overrides)

    from pipeline.runners.estimating import estimate

    return estimate(output, settings)


if __name__ == "__main__":
    sys.exit(main(["estimate", *sys.argv[1:]]))
