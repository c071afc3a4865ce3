"""`simswap status OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import MLFLOW_RESULT, STORES, Command
from jobs.swap import COMMAND as SWAP
from pipeline.config import StatusConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="tell how a swap stands",
    settings=StatusConfig,
    words={"OUTPUT": "folder or address of the job"},
    reads={"{OUTPUT}/_simswap": "the books of the job"},
    environment=STORES,
    result={
        "status": "running, finished or stopped",
        "output": "of the job",
        "inputs": "of the job",
        **{key: says for key, says in SWAP.result.items() if key.split(".")[0] in ("items", "reasons", "faces")},
        "faces_per_s": SWAP.result["faces_per_s"],
        "left?": "files: inputs without a receipt",
        "films_at_work?": "files: videos that are begun and not ended",
        "items_per_s?": "files: inputs a second over the last 10 minutes",
        "last_at?": "files: when the last input ended, UTC; null before the first",
        "shards.done?": "shards that are whole",
        "shards.left?": "shards that are not yet",
        "images_at_work?": "images in shards that are at work",
        "workers": "processes that work here now",
        "recipe": "digest of all that decides results",
        **MLFLOW_RESULT,
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """How a swap stands, while it runs or after."""
    (output,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(StatusConfig, None, overrides)

    from pipeline.runners.upkeep import job_status

    return job_status(output, settings)


if __name__ == "__main__":
    sys.exit(main(["status", *sys.argv[1:]]))
