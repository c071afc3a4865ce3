"""`simswap preview CONFIG.yaml inputs=DIR output=DIR source=… checkpoint=FILE models=PACK film=clips/one.mp4`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import PreviewConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Show a few seconds and a contact sheet of a video's swap before the long run."""
    (config,), overrides = split_words(words, ["CONFIG.yaml"])
    settings = load_settings(PreviewConfig, config, overrides)

    from pipeline.runners.previewing import run_preview

    return run_preview(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["preview", *sys.argv[1:]]))
