"""The inputs of a swap: which there are, and which of them are left to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from pipeline.config import SwapConfig
from pipeline.errors import ConfigError
from pipeline.media.inputs import InputFile, list_inputs
from pipeline.media.layouts import Listing, lay_out
from pipeline.media.pairs import read_pairs
from pipeline.media.store import BOOKS, Store
from pipeline.runners.progress import warn
from pipeline.swapping import Plan
from pipeline.swapping.receipts import ReceiptBook
from pipeline.swapping.shards import read_records


def list_work(plan: Plan) -> Listing:
    """All inputs of a job, and how they are laid out.

    Raises:
        ConfigError: there are none.
    """
    settings = plan.settings
    if settings.pairs is not None:
        return Listing("files", _paired(plan, settings.pairs), [])
    listing = lay_out(list(_inputs(settings)), settings.layout, settings.inputs)
    if not listing.files:
        raise ConfigError(settings.inputs, "holds no files", "Give a folder of images")
    if listing.others:
        some = ", ".join(listing.others[:5])
        said = "no shards and are left out" if listing.layout == "shards" else "shards among images, and skipped"
        warn(f"{len(listing.others)} files are {said} (layout={listing.layout}): {some}")
    return listing


def _paired(plan: Plan, pairs: str) -> list[InputFile]:
    """A row of the table of pairs as an input each."""
    there = {file.item: file for file in _inputs(plan.settings)}
    number = {source.name: n for n, source in enumerate(plan.sources)}
    files = []
    for pair in read_pairs(pairs):
        file = there.get(pair.target, InputFile(pair.target, 0, 0, "the table names it, and it is not below inputs"))
        who = number[pair.source]
        files.append(replace(file, item=pair.output, path=pair.target, source=who, face=pair.face))
    return files


def _inputs(settings: SwapConfig) -> Iterator[InputFile]:
    books = 0
    for file in list_inputs(settings.inputs, settings.storage):
        if file.item.startswith(f"{BOOKS}/"):
            books += 1
            continue
        yield file
    if books:
        warn(f"{settings.inputs}/{BOOKS}: the books of another job, left out ({books} files)")


def left_of(plan: Plan, book: ReceiptBook, layout: str, files: list[InputFile]) -> list[InputFile]:
    """Inputs that are not done, or have changed since, or whose result has gone."""
    if layout == "files":
        return _without_receipt(files, book.read(plan.recipe), plan.output())
    store, records = plan.output(), read_records(plan.output())
    there = {file.name for file in store.list() if not file.name.startswith(f"{BOOKS}/")}
    done = {name for name, one in records.items() if not one.output_sha256 or name in there}
    return [file for file in files if file.item not in done or not records[file.item].is_of(file, plan.recipe)]


def _without_receipt(files: list[InputFile], receipts: pa.Table, output: Store) -> list[InputFile]:
    """Inputs without a receipt, or changed since, or whose output has gone."""
    columns = receipts.select(["item", "output", "input_bytes", "input_mtime_ns"]).to_pydict()
    known = {item: (size, mtime, made) for item, made, size, mtime in zip(*columns.values(), strict=True)}
    there = None if output.local is not None else {file.name for file in output.list()}
    todo = []
    for file in files:
        size, mtime, made = known.get(file.item, (None, None, ""))
        same = (size, mtime) == (file.size_bytes, file.mtime_ns)
        gone = made and (made not in there if there is not None else not (output.local / made).exists())
        if not same or gone:
            todo.append(file)
    return todo
