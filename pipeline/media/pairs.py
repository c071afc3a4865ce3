"""Tables that say which target becomes which source."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.media.copies import local_copy

_COLUMNS = ("target", "source")


@dataclass(frozen=True, slots=True)
class Pair:
    """One target and who its faces become.

    Attributes:
        target: path below the inputs.
        source: name of a source: of a table's row, or a path below the folder `source`.
        face: `all`, `largest`, or the number of a face from the left, from 0; empty leaves it to the selection.
        output: path of the result below the output.
    """

    target: str
    source: str
    face: str
    output: str


def read_pairs(path: str) -> list[Pair]:
    """The pairs of a table.

    Args:
        path: CSV, JSONL or Parquet with the columns `target`, `source` and, where wanted, `face` and `output`; or
            JSON as FaceForensics++ splits it: pairs of numbers, each of which stands for both directions.

    Raises:
        ConfigError: missing, not such a table, empty, or two rows with one result.
    """
    path = local_copy(path)
    if not Path(path).is_file():
        raise ConfigError(f"pairs: {path}", "no such table", "Give a CSV, JSONL or Parquet of target and source")
    readers = {".parquet": _parquet, ".jsonl": _lines, ".json": _splits}
    try:
        pairs = [_pair(path, n, row) for n, row in enumerate(readers.get(Path(path).suffix.lower(), _csv)(path), 1)]
    except (OSError, ValueError, TypeError, csv.Error, pa.ArrowException) as error:
        raise ConfigError(f"pairs: {path}", f"cannot be read ({error})") from error
    if not pairs:
        raise ConfigError(f"pairs: {path}", "names no pair", "Give rows of target and source")
    taken: dict[str, Pair] = {}
    for pair in pairs:
        other = taken.setdefault(pair.output, pair)
        if other is not pair:
            problem = f"{pair.output} would be the result of two rows ({other.target} and {pair.target})"
            raise ConfigError(f"pairs: {path}", problem, "Name results in a column output")
    return pairs


def _pair(path: str, number: int, row: Mapping[str, Any]) -> Pair:
    missing = [name for name in _COLUMNS if row.get(name) in (None, "")]
    if missing:
        raise ConfigError(f"pairs: {path}", f"row {number} has no {' and no '.join(missing)}", "Give every row both")
    target, source = (_path(path, number, str(row[name])) for name in _COLUMNS)
    face = "" if row.get("face") is None else str(row["face"]).strip()
    if face not in ("", "all", "largest") and not face.isdigit():
        raise ConfigError(f"pairs: {path}", f"row {number}: no face {face!r}", "Say all, largest or a number from 0")
    given = row.get("output")
    return Pair(target, source, face, _path(path, number, str(given)) if given else _result_name(target, source))


def _path(path: str, number: int, value: str) -> str:
    """A path that stays below its folder."""
    parts = PurePosixPath(value.strip().replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ConfigError(f"pairs: {path}", f"row {number}: {value!r} is no path below a folder", "Give relative paths")
    return parts.as_posix()


def _result_name(target: str, source: str) -> str:
    """Target and source in one name, as FaceForensics++ has it: `000_003.mp4`."""
    path, who = PurePosixPath(target), PurePosixPath(source)
    return path.with_name(f"{path.stem}_{'-'.join(who.with_suffix('').parts)}{path.suffix}").as_posix()


def _parquet(path: str) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def _csv(path: str) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _lines(path: str) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                yield dict(json.loads(line))


def _splits(path: str) -> Iterator[Mapping[str, Any]]:
    """The split files of FaceForensics++: [["071", "054"], …]."""
    for one, other in json.loads(Path(path).read_text(encoding="utf-8-sig")):
        for target, source in ((one, other), (other, one)):
            yield {"target": f"{target}.mp4", "source": f"{source}.mp4"}
