"""`python -m jobs.portraits FOLDER people=2000 photos=5`: draw a labelled set of procedural photographs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.cli import main, split_words
from jobs.command import Command
from pipeline.config import PortraitsConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="draw a labelled set of procedural photographs",
    settings=PortraitsConfig,
    words={"FOLDER": "folder to draw into; what is in it stays"},
    writes={"{FOLDER}": "a folder of pictures for each person"},
    result={"folder": "where they are", **dict.fromkeys(PortraitsConfig.model_fields, "setting")},
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Draw people; what is in the folder already stays."""
    (folder,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(PortraitsConfig, None, overrides)
    facts = {"command": "portraits", "folder": folder, **settings.model_dump(mode="json")}
    if dry_run:
        return {**facts, "status": "planned"}

    from pipeline.portrait_pack.photographs import write_photographs
    from pipeline.runners.progress import Progress

    with Progress("portraits", settings.people) as progress:
        drawn = write_photographs(Path(folder), settings.people, settings.photos, settings.seed, settings.processes)
        for _ in drawn:
            progress.advance(1, {})
    return {**facts, "status": "done"}


if __name__ == "__main__":
    sys.exit(main(["portraits", *sys.argv[1:]]))
