"""`simswap evaluate CONFIG.yaml data=SET checkpoint=FILE models=PACK judge=PACK output=DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import CLUSTER, COPIES, MLFLOW_RESULT, SETTINGS_FILE, STORES, TRACKING, Command
from pipeline.config import EvaluateConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="measure a generator on people of a prepared set",
    settings=EvaluateConfig,
    words={"CONFIG.yaml": SETTINGS_FILE},
    reads={
        "{data}": "the prepared set",
        "{checkpoint}": "the generator",
        "{models}": "the recogniser that trained it; a pack's name is looked up in ~/.insightface/models",
        "{judge}": "the recogniser that says who is who, and the networks that find landmarks",
        "{baseline}": "figures of another generator",
    },
    writes={
        "{output}/evaluation.json": "figures, with the digest of the protocol that they were measured by",
        "{output}/grid.png": "sources x targets",
        "{output}/_simswap/job.json": "recipe, resolved settings, digests, MLflow run",
        "{output}/_simswap/mlflow-spool": "what MLflow could not be told yet",
        "{tracking.uri}": "MLflow: a run with settings, figures and picture",
        "~/.insightface/models": "a pack that is given by name and is not there: insightface downloads it",
    },
    environment={**STORES, **COPIES, **TRACKING, **CLUSTER},
    result={
        "output": "where figures and picture are",
        "checkpoint_sha256": "of the generator",
        "protocol_digest": "of all that decides the figures but the generator: only equal ones compare",
        "people": "that were swapped with each other, and the gallery of the retrieval",
        "pairs": "swaps that were judged",
        "figures": "name -> mean, see docs/evaluate.md",
        "differences?": "name -> figure less the baseline's",
        **MLFLOW_RESULT,
        "seconds": "s that this call took",
    },
    plan={
        "data": "the prepared set",
        "checkpoint": "the generator",
        "people": "that will be swapped with each other",
        "pairs": "swaps that will be judged",
        "protocol_digest": "of all that decides the figures but the generator",
        "output": "where figures and picture will be",
        "recipe": "digest of protocol and generator",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Measure a generator; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(EvaluateConfig, config, overrides)

    from pipeline.runners.evaluating import run_evaluation

    return run_evaluation(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
