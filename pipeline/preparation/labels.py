"""Who is in which photograph, where a table says so."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError


def read_labels(path: str) -> dict[str, str]:
    """Identity of every photograph that a table names.

    Args:
        path: `.parquet` or `.csv` with the columns `path` and `identity` (a CSV of two columns may do without their
            names), or any other text of lines with a path, blanks, and an identity.

    Returns:
        Path below the inputs, with forward slashes -> identity.

    Raises:
        ConfigError: missing, not such a table, empty, or one photograph under two identities.
    """
    if not Path(path).is_file():
        raise ConfigError(path, "no such table of labels", "Set table to a CSV, Parquet or text file")
    readers = {".parquet": _parquet, ".csv": _csv}
    labels: dict[str, str] = {}
    try:
        for photo, identity in readers.get(Path(path).suffix.lower(), _lines)(path):
            name = PurePosixPath(photo.strip().replace("\\", "/")).as_posix()
            if labels.setdefault(name, identity.strip()) != identity.strip():
                problem = f"{name} is {labels[name]} and {identity.strip()}"
                raise ConfigError(path, problem, "Give every photograph one identity")
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise ConfigError(path, f"cannot be read as a table of path and identity ({error})") from error
    if not labels:
        raise ConfigError(path, "names no photograph", "Give rows of path and identity")
    return labels


def _parquet(path: str) -> Iterator[tuple[str, str]]:
    missing = {"path", "identity"} - set(pq.read_schema(path).names)
    if missing:
        raise ConfigError(path, f"has no column {' and '.join(sorted(missing))}", "Name its columns path and identity")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["path", "identity"]):
            yield from _labelled(zip(*(batch.column(name).to_pylist() for name in ("path", "identity")), strict=True))


def _csv(path: str) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = (row for row in csv.reader(file) if row)
        first = next(rows, ["path", "identity"])
        names = [cell.strip().lower() for cell in first]
        if {"path", "identity"} <= set(names):
            columns = names.index("path"), names.index("identity")
        elif len(first) == 2:
            columns = 0, 1
            yield first[0], first[1]
        else:
            problem = f"has the columns {', '.join(first)}"
            raise ConfigError(path, problem, "Name those of the photograph and the person path and identity")
        for number, row in enumerate(rows, start=2):
            if len(row) <= max(columns):
                raise ConfigError(path, f"row {number} has {len(row)} columns", "Give a path and an identity in each")
            yield from _labelled([(row[columns[0]], row[columns[1]])])


def _lines(path: str) -> Iterator[tuple[str, str]]:
    """The last word is the identity: paths may hold blanks."""
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            words = line.rsplit(maxsplit=1)
            if len(words) == 1:
                raise ConfigError(path, f"line {number} has one word", "Write a path, a blank and an identity in each")
            if words:
                yield words[0], words[1]


def _labelled(rows: Iterable[tuple[object, object]]) -> Iterator[tuple[str, str]]:
    """Rows that name both; identities may be numbers."""
    for photo, identity in rows:
        if photo is not None and identity is not None and str(identity).strip():
            yield str(photo), str(identity)
