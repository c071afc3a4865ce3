"""`simswap swap CONFIG.yaml inputs=DIR output=DIR source=PHOTO_OR_DIR checkpoint=FILE models=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import SwapConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Replace the faces in a folder of images; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, ["CONFIG.yaml"])
    settings = load_settings(SwapConfig, config, overrides)

    from pipeline.runners.swapping import run_swap

    return run_swap(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["swap", *sys.argv[1:]]))
