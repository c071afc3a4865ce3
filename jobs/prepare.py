"""`simswap prepare CONFIG.yaml inputs=DIR output=DIR models=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import CLUSTER, COPIES, MLFLOW_RESULT, SETTINGS_FILE, STORES, TRACKING, Command
from pipeline.config import PrepareConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="make a training set of a folder of photographs",
    settings=PrepareConfig,
    words={"CONFIG.yaml": SETTINGS_FILE},
    reads={
        "{inputs}": "photographs",
        "{table}": "who is who",
        "{models}": "the networks that find and tell faces; a pack's name is looked up in ~/.insightface/models",
        "{output}/_simswap": "the books of the same job before",
    },
    writes={
        "{output}/shards": "a row a face: crop, embedding, identity, what was measured",
        "{output}/index.parquet": "shard, row and identity of every face that counts; embeddings.npy beside it",
        "{output}/photos.parquet": "what became of each photograph",
        "{output}/header.json": "what the set is; written last",
        "{output}/_simswap/report.html": "counts, pictures, histograms; contact_sheet.jpg beside it",
        "{output}/_simswap/job.json": "recipe, resolved settings, digests, MLflow run",
        "{output}/_simswap/receipts": "the photographs of each shard",
        "{output}/_simswap/mlflow-spool": "what MLflow could not be told yet",
        "{tracking.uri}": "MLflow: a run with settings, metrics and report",
        "~/.insightface/models": "a pack that is given by name and is not there: insightface downloads it",
    },
    environment={**STORES, **COPIES, **TRACKING, **CLUSTER},
    result={
        "photos.total": "photographs",
        "photos.kept": "photographs of which a face is in the set",
        "photos.dropped": "photographs left out",
        "reasons": "reason -> photographs left out",
        "faces": "faces in the set",
        "identities": "people in the set",
        "faces_per_identity.least": "faces of who has fewest",
        "faces_per_identity.median": "median of the faces of a person",
        "faces_per_identity.most": "faces of who has most",
        "photos_per_s": "photographs a second of one worker",
        "clusters.min_cosine?": "labels=cluster: threshold",
        "clusters.found?": "labels=cluster: people found, before the filters",
        "clusters.sizes?": "labels=cluster: faces of a person -> people",
        "shards": "shards of the set",
        "shards_made_now": "shards that this call made",
        "output": "where the set is",
        "photos_table": "what became of each photograph",
        "report?": "page to open",
        "contact_sheet?": "picture of some people",
        "recipe": "digest of all that decides the set",
        **MLFLOW_RESULT,
        "seconds": "s that this call took",
    },
    plan={
        "inputs": "where the photographs are",
        "photos_found": "photographs",
        "photos_left": "photographs in shards that are still to be made",
        "bytes_left": "bytes of those",
        "labels": "who says who is who",
        "identities_labelled": "people that the labels name",
        "shards": "shards of the set",
        "shards_left": "shards still to be made",
        "output": "where the set will be",
        "models": "the pack",
        "encoder": "file of its recogniser",
        "crop_size": "px, side of the crops",
        "template": "alignment of the crops",
        "filters": "settings of the filters",
        "pool": "workers and what they reserve",
        "recipe": "digest of all that decides the set",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Make a training set of a folder of photographs; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(PrepareConfig, config, overrides)

    from pipeline.runners.preparation import run_prepare

    return run_prepare(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
