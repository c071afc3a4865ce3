"""`simswap redrive OUTPUT reasons=[timed_out]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import Command
from jobs.swap import COMMAND as SWAP
from pipeline.config import RedriveConfig
from pipeline.settings import load_settings

_REDRIVEN = {
    "redriven": "inputs done again",
    "reasons": "reason -> inputs; of the whole job once it has run",
    "output": "where the results are",
}
_SWAPPED = {f"{key.removesuffix('?')}?": says for key, says in SWAP.result.items() if key not in _REDRIVEN}

COMMAND = Command(
    says="do inputs of a swap that failed again",
    settings=RedriveConfig,
    words={"OUTPUT": "folder or address of the job"},
    settings_of=("swap",),
    reads={"{OUTPUT}/_simswap": "settings and receipts of the job", **SWAP.reads},
    writes=SWAP.writes,
    environment=SWAP.environment,
    result=_REDRIVEN | _SWAPPED,
    plan=_REDRIVEN,
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Do inputs that failed again, by the settings that the job had, or others that decide no result."""
    (output,), overrides = split_words(words, COMMAND.words)
    own = [word for word in overrides if word.startswith("reasons=")]
    settings = load_settings(RedriveConfig, None, own)

    from pipeline.runners.upkeep import redrive

    return redrive(output, settings, [word for word in overrides if word not in own], dry_run)


if __name__ == "__main__":
    sys.exit(main(["redrive", *sys.argv[1:]]))
