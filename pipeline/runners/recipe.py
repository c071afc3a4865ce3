"""What decides the results of a swap besides its inputs, as one digest: outputs of another recipe are another job's."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from pipeline.config import SwapConfig
from pipeline.faces.packs import file_digest
from pipeline.media.addresses import is_local
from pipeline.media.copies import local_copy
from pipeline.media.pairs import read_pairs
from pipeline.media.store import store_at
from pipeline.model.checkpoint import CheckpointHeader

DECIDES_RESULTS = ("images", "shards", "videos", "analysis", "selection", "anonymise", "policy", "mask")
"""Sections of the settings that change a result; the others only change how it is made."""


def recipe_of(settings: SwapConfig, header: CheckpointHeader, model_digest: str) -> str:
    """Digest of all that decides a result besides the input: of bytes, so that no machine's rounding is in it.

    Args:
        settings: of the swap, with absolute paths.
        header: of the checkpoint.
        model_digest: sha256 of the model pack's networks; empty without a pack.
    """
    facts = settings.model_dump(mode="json", include=set(DECIDES_RESULTS))
    for path in ("read_table", "write_table"):  # what the table holds counts, not where it lies
        facts["analysis"].pop(path)
    facts["mask"].pop("model")
    selection = settings.selection
    facts |= {
        "version": version("simswap-ray"),
        "precision": settings.swapper.precision,
        "passthrough": settings.swapper.passthrough,
        "checkpoint": header.digest,
        "models": model_digest,
        "mask_model": _content(settings.mask.model),
        "table": _table_content(settings),
        "source": [Path(settings.source).name, _source_content(settings)],
        "pairs": _content(settings.pairs),
        "references": [[_content(reference), name] for reference, name in selection.mapping.items()],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _source_content(settings: SwapConfig) -> list[list[str]]:
    """What the sources are; of those that pairs name, which may be films, not more than size and time."""
    if settings.pairs is None or settings.source.endswith(".parquet"):
        return _content(settings.source)
    named = sorted(Path(local_copy(f"{settings.source}/{name}")) for name in named_sources(settings.pairs))
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [[file.name, f"{file.stat().st_size} {file.stat().st_mtime_ns}"] for file in files]


def named_sources(pairs: str) -> list[str]:
    """The sources that a table of pairs names, each once, in its order."""
    return list(dict.fromkeys(pair.source for pair in read_pairs(pairs)))


def _table_content(settings: SwapConfig) -> list[list[str]]:
    """Name and digest of every file of an analysis table, which is read from where it lies."""
    table = settings.analysis.read_table
    if table is None or is_local(table):
        return _content(table)
    store = store_at(table, settings.storage)
    return [[file.name, store.digest(file.name)] for file in store.list()]


def _content(address: str | None) -> list[list[str]]:
    """Relative name and digest of a file, or of every file in a folder."""
    if address is None:
        return []
    top = Path(local_copy(address))
    files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
    return [[p.relative_to(top).as_posix(), file_digest(str(p))] for p in files]
