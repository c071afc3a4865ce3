"""`simswap preview CONFIG.yaml inputs=DIR output=DIR source=… checkpoint=FILE models=PACK film=clips/one.mp4`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import COPIES, SETTINGS_FILE, STORES, Command
from jobs.swap import COMMAND as SWAP
from pipeline.config import PreviewConfig
from pipeline.settings import load_settings

_PICTURES = {
    "film": "the video, by its path below inputs",
    "clip": "original and result side by side",
    "contact_sheet": "frames of the whole video before and after",
}
"""What the plan tells, and the result, too."""

COMMAND = Command(
    says="show what the swap of a video will look like",
    settings=PreviewConfig,
    words={"CONFIG.yaml": SETTINGS_FILE},
    reads=SWAP.reads,
    writes={
        "{output}/_simswap/preview/PATH.mp4": "the clip of the video of that path",
        "{output}/_simswap/preview/PATH.jpg": "its contact sheet",
        "~/.insightface/models": SWAP.writes["~/.insightface/models"],
    },
    environment={**STORES, **COPIES},
    result={
        **_PICTURES,
        "at_s": "s into the video at which the clip begins",
        "frames": "frames of the clip",
        "sheet_frames": "frames on the contact sheet",
        "sheet_faces.found": "faces on it",
        "sheet_faces.changed": "faces on it that were swapped",
        "seconds": "s that this call took",
    },
    plan=_PICTURES,
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Show a few seconds and a contact sheet of a video's swap before the long run."""
    (config,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(PreviewConfig, config, overrides)

    from pipeline.runners.previewing import run_preview

    return run_preview(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["preview", *sys.argv[1:]]))
