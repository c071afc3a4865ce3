"""`simswap gc OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import STORES, Command
from pipeline.config import GcConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="remove what killed jobs have left in an output",
    settings=GcConfig,
    words={"OUTPUT": "folder or address of the job"},
    reads={"{OUTPUT}": "books of the job and names of all files"},
    writes={"{OUTPUT}": "its claim; leftovers are removed, with orphans=true also results without a receipt"},
    environment=STORES,
    result={
        "output": "of the job",
        "removed": "kind (partial, at_work, orphans) -> files removed; 0 with --dry-run",
        "found": "kind -> files found",
        "orphans": "names of the first 100 results that no receipt tells of",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Remove what killed jobs have left in an output."""
    (output,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(GcConfig, None, overrides)

    from pipeline.runners.upkeep import collect_garbage

    return collect_garbage(output, settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["gc", *sys.argv[1:]]))
