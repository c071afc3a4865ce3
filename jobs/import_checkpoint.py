"""`simswap import-checkpoint generator.pth checkpoint.safetensors variant=inference-512 encoder=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import COPIES, STORES, Command
from pipeline.config import ImportConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="turn a published state dict into a checkpoint",
    settings=ImportConfig,
    words={"IN.pth": "state dict of a published generator", "OUT.safetensors": "checkpoint to write"},
    reads={"{IN.pth}": "the state dict", "{encoder}": "the recogniser that trained it"},
    writes={
        "{OUT.safetensors}": "the checkpoint",
        "~/.insightface/models": "a pack that is given by name and is not there: insightface downloads it",
    },
    environment={**STORES, **COPIES},
    result={
        "checkpoint": "the file",
        "variant": "setting",
        "model": "settings of the generator",
        "encoder.name": "file of the recogniser",
        "encoder.sha256": "its digest",
        "parameters": "numbers that training moves",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Turn a published generator's state dict of a stated variant into a checkpoint."""
    (source, target), overrides = split_words(words, COMMAND.words)
    settings = load_settings(ImportConfig, None, overrides)

    from pipeline.faces.importing import import_checkpoint

    facts = import_checkpoint(source, None if dry_run else target, settings)
    return {"command": "import-checkpoint", "status": "planned" if dry_run else "done", "checkpoint": target, **facts}


if __name__ == "__main__":
    sys.exit(main(["import-checkpoint", *sys.argv[1:]]))
