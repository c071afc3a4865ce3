"""`simswap swap CONFIG.yaml inputs=DIR output=DIR source=PHOTO_OR_DIR checkpoint=FILE models=PACK`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import CLUSTER, COPIES, MLFLOW_RESULT, SETTINGS_FILE, STORES, TRACKING, Command
from pipeline.config import SwapConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="replace the faces in a folder of images and videos",
    settings=SwapConfig,
    words={"CONFIG.yaml": SETTINGS_FILE},
    reads={
        "{inputs}": "images and videos, or shards of them",
        "{source}": "photographs of whom the faces become, or a table of embeddings",
        "{checkpoint}": "the generator",
        "{models}": "the networks that find and tell faces; a pack's name is looked up in ~/.insightface/models",
        "{pairs}": "who becomes whom, row by row",
        "{analysis.read_table}": "faces that were found before",
        "{mask.model}": "network of the masks",
        "{selection.mapping}": "reference photographs, the keys",
        "{output}/_simswap": "the books of the same job before",
    },
    writes={
        "{output}/PATH": "result of the input of that path, or the shard of that name with its side files",
        "{output}/_simswap/receipts.parquet": "what became of each input; of shards a file each in receipts/",
        "{output}/_simswap/records": "what became of each shard",
        "{output}/_simswap/report.html": "counts, pictures, histograms; contact_sheet.jpg and quality.png beside it",
        "{output}/_simswap/job.json": "recipe, resolved settings, digests, MLflow run",
        "{output}/_simswap/people.parquet": "who was met, where that decides who becomes whom: embeddings of originals",
        "{output}/_simswap/films": "what is done of videos that are at work; shards/ of shards, partial/ of files",
        "{output}/_simswap/claims": "who works here now",
        "{output}/_simswap/mlflow-spool": "what MLflow could not be told yet",
        "{analysis.write_table}": "faces that were found, for later runs",
        "{tracking.uri}": "MLflow: a run with settings, metrics, report and receipts",
        "~/.insightface/models": "a pack that is given by name and is not there: insightface downloads it",
    },
    environment={**STORES, **COPIES, **TRACKING, **CLUSTER},
    result={
        "items.total": "inputs; of shards their images",
        "items.done": "inputs with a result",
        "items.skipped": "inputs that need none",
        "items.failed": "inputs without one",
        "reasons": "reason -> inputs",
        "faces.found": "faces in all inputs",
        "faces.swapped": "faces swapped",
        "faces.blurred": "faces blurred",
        "faces.kept": "faces left as they were",
        "faces_per_s": "stage (analyse, swap, finish) -> faces a second of one worker",
        "done_now": "inputs (or shards) that this call worked on; 0 where all was done",
        "output": "where the results are",
        "receipts": "where the receipts are",
        "notes?": "what could not be kept of shards",
        "report?": "page to open",
        "contact_sheet?": "picture of some pairs",
        "recipe": "digest of all that decides results",
        **MLFLOW_RESULT,
        "seconds": "s that this call took",
    },
    plan={
        "inputs": "where the inputs are",
        "layout": "files or shards",
        "inputs_found": "inputs, or shards",
        "inputs_left": "those without a receipt of this recipe",
        "videos_left": "videos of those",
        "bytes_left": "bytes of those",
        "images_left?": "layout=shards: images in them, as far as they say",
        "shards_of_unknown_size?": "layout=shards: shards that do not say it",
        "output": "where results will be",
        "checkpoint": "the generator",
        "checkpoint_sha256": "its digest",
        "model": "its settings",
        "models": "the pack",
        "selection": "selection.mode",
        "sources": "name, photos and outliers of the first 100 sources",
        "mapping": "reference -> source",
        "pools": "workers and what they reserve",
        "recipe": "digest of all that decides results",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Replace the faces in a folder of images; settings are checked before anything heavy loads."""
    (config,), overrides = split_words(words, COMMAND.words)
    settings = load_settings(SwapConfig, config, overrides)

    from pipeline.runners.swapping import run_swap

    return run_swap(settings, dry_run)


if __name__ == "__main__":
    sys.exit(main(["swap", *sys.argv[1:]]))
