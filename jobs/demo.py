"""`simswap demo`: draw people, prepare, train, swap: the whole way in minutes, with no download and no photograph."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.cli import main, split_words
from jobs.command import TRACKING, Command
from jobs.swap import COMMAND as SWAP
from pipeline.config import DemoConfig, PrepareConfig, SwapConfig, TrainConfig
from pipeline.settings import load_settings

_TINY = str(Path(__file__).parent / "configs" / "train-tiny-finish.yaml")

COMMAND = Command(
    says="make portraits, swap them, make a report: needs nothing",
    settings=DemoConfig,
    writes={
        "{folder}": "drawings, training set, generator, swapped pictures with their report, mlflow.db",
    },
    environment={name: says for name, says in TRACKING.items() if name.startswith("MLFLOW_HTTP")},
    result={
        **SWAP.result,
        "prepared": "result of its `simswap prepare`",
        "trained": "result of its `simswap train`",
    },
    plan=dict.fromkeys(DemoConfig.model_fields, "setting"),
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Each step is the command of its name; what is done already is not done again."""
    _, overrides = split_words(words, COMMAND.words)
    settings = load_settings(DemoConfig, None, overrides)

    if dry_run:
        return {"command": "demo", "status": "planned", **settings.model_dump(mode="json")}

    from pipeline.runners import demo
    from pipeline.runners.preparation import run_prepare
    from pipeline.runners.progress import say
    from pipeline.runners.swapping import run_swap
    from pipeline.runners.training import run_training

    story = f"tracking.uri=sqlite:///{(Path(settings.folder) / 'mlflow.db').resolve()}"
    places = demo.draw_demo(settings)
    prepare = load_settings(PrepareConfig, None, [*demo.prepare_words(settings, places), story])
    prepared = run_prepare(prepare)
    train = load_settings(TrainConfig, _TINY, [*demo.train_words(settings, prepare.output), story])
    trained = run_training(train)
    swap = load_settings(SwapConfig, None, [*demo.swap_words(settings, places, trained["checkpoint"]), story])
    result = run_swap(swap)
    say("report", message=f"open {result['report']}")
    return {**result, "command": "demo", "prepared": prepared, "trained": trained}


if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
