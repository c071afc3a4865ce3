"""`simswap prepare CONFIG.yaml inputs=DIR output=DIR models=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import PrepareConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Make a training set of a folder of photographs; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, ["CONFIG.yaml"])
    settings = load_settings(PrepareConfig, config, overrides)

    from pipeline.runners.preparation import run_prepare

    return run_prepare(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
