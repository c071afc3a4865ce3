"""`simswap train CONFIG.yaml data=DIR output=DIR models=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import TrainConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Train a generator on a prepared set; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, ["CONFIG.yaml"])
    settings = load_settings(TrainConfig, config, overrides)

    from pipeline.runners.training import run_training

    return run_training(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
