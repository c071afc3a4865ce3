"""`simswap train CONFIG.yaml data=DIR output=DIR models=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import CLUSTER, COPIES, MLFLOW_RESULT, SETTINGS_FILE, STORES, TRACKING, Command
from pipeline.config import TrainConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="train a generator on a prepared set",
    settings=TrainConfig,
    words={"CONFIG.yaml": SETTINGS_FILE},
    reads={
        "{data}": "the prepared set",
        "{models}": "the recogniser that prepared it; a pack's name is looked up in ~/.insightface/models",
        "{initial}": "generator to start from",
        "{validation.judge}": "the recogniser that scores",
        "{discriminator.backbone}": "frozen network of a projected discriminator",
        "{output}/checkpoints": "the checkpoint to go on from",
    },
    writes={
        "{output}/best.safetensors": "the averaged generator of the best validation; its figures in best.json",
        "{output}/checkpoints": "the last checkpoints, each with generator, optimisers, figures and grid picture",
        "{output}/_simswap/job.json": "recipe, resolved settings, digests, MLflow run",
        "{output}/_simswap/mlflow-spool": "what MLflow could not be told yet",
        "{tracking.uri}": "MLflow: a run with settings, every step and the grid pictures",
        "{registered_model}": "MLflow: a version of that model in its registry",
        "~/.insightface/models": "a pack that is given by name and is not there: insightface downloads it",
    },
    environment={**STORES, **COPIES, **TRACKING, **CLUSTER},
    result={
        "steps": "optimiser steps in all",
        "output": "where checkpoints and best generator are",
        "checkpoint": "the best generator; null where none was validated",
        "best": "step and figures of the best validation",
        "recipe": "digest of all that decides the training",
        **MLFLOW_RESULT,
        "seconds": "s that this call took",
    },
    plan={
        "data": "the prepared set",
        "samples": "faces to train on",
        "identities": "people in the set",
        "identities_held_out": "people kept for validation",
        "data_digest": "of the set",
        "encoder": "file of the recogniser",
        "model": "settings of the generator",
        "steps": "optimiser steps in all",
        "epochs": "times that every face is seen",
        "workers": "fewest and most workers",
        "samples_a_worker_and_step": "samples of one step on one worker",
        "output": "where checkpoints and best generator will be",
        "continues": "whether there is something to go on from",
        "recipe": "digest of all that decides the training",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Train a generator on a prepared set; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(TrainConfig, config, overrides)

    from pipeline.runners.training import run_training

    return run_training(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
