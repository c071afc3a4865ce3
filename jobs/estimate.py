"""`simswap estimate OUTPUT items=N [hours=H] [key=value ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import STORES, Command
from pipeline.config import EstimateConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="tell how long a swap of many inputs takes, by the receipts of a trial of some",
    settings=EstimateConfig,
    words={"OUTPUT": "folder or address of the trial: a finished swap of 100 inputs or more"},
    reads={"{OUTPUT}/_simswap": "the books of the trial"},
    environment=STORES,
    result={
        "items": "inputs to do",
        "seconds": "from the command to its end",
        "hours": "the same",
        "items_per_s": "while it goes",
        "held_up_by": "the stage with too few workers, or the cores that all share",
        "workers": "of each pool; with hours those that it takes",
        "cores": "that the workers without a GPU share",
        "gpus": "that the workers hold",
        "cost": "by cpu_hour and gpu_hour",
        "trial.items": "inputs of the trial",
        "trial.stage_s": "stage -> seconds of one worker for one input",
        "trial.start_s": "seconds until the first input had ended",
        "trial.end_s": "seconds after the last one",
        "trial.share_of_bound": "part of what its workers could have done at the most",
        "trial.enough": "whether it was large enough to go by",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """How long a swap of many inputs takes, from a trial of some."""
    (output,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(EstimateConfig, None, overrides)

    from pipeline.runners.estimating import estimate

    return estimate(output, settings)


if __name__ == "__main__":
    sys.exit(main(["estimate", *sys.argv[1:]]))
