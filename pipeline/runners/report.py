"""What people look at after a job: a contact sheet, plots of quality, and one page that holds them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.config import SwapConfig
from pipeline.errors import ItemError, StoreError
from pipeline.media.images import read_image
from pipeline.media.layouts import split_item
from pipeline.media.shards.reading import Place, ShardReader
from pipeline.media.store import BOOKS, Store
from pipeline.media.stretch import stretch_address
from pipeline.media.video import is_video
from pipeline.media.video_decoding import middle_frame
from pipeline.runners.outcome import Outcome
from pipeline.runners.page import Pixels, encode_jpeg, html_page, html_picture, html_table, side_by_side
from pipeline.swapping import Plan

mpl.use("Agg")
from matplotlib.figure import Figure

_TILE = 256
"""Side in pixels of a picture on the contact sheet."""

_COSINES = {
    "source_cosine_before": "original to source",
    "source_cosine_after": "result to source",
    "owner_cosine_after": "result to owner",
}


def write_report(plan: Plan, outcome: Outcome, summary: Mapping[str, Any]) -> list[str]:
    """Write the contact sheet, the histograms and the page into the output's books.

    Args:
        plan: of the job.
        outcome: of the whole job.
        summary: counts, as `summarise` gives them.

    Returns:
        Names of the files written, each whole.
    """
    files, settings, store, receipts = {}, plan.settings, plan.output(), outcome.shown
    sheet = contact_sheet(plan, receipts, outcome.paths)
    if sheet is not None:
        files["contact_sheet.jpg"] = encode_jpeg(sheet)
    plot = _histograms(receipts)
    if plot is not None:
        files["quality.png"] = plot
    files["report.html"] = _page(settings, receipts, summary, files).encode()
    for name, data in files.items():
        store.write(f"{BOOKS}/{name}", data)
    return [f"{BOOKS}/{name}" for name in files]


def quality_metrics(receipts: pa.Table) -> dict[str, float]:
    """Median and quartiles of every cosine, as metrics."""
    metrics = {}
    for name in _COSINES:
        values = _values(receipts, name)
        if len(values):
            for label, q in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
                metrics[f"quality/{name}/{label}"] = float(np.quantile(values, q))
    return metrics


def contact_sheet(plan: Plan, receipts: pa.Table, paths: Mapping[str, str]) -> Pixels | None:
    """Pairs (original | result) of inputs spread evenly over the job; None when there is nothing to show.

    Returns:
        [h, w, 3] u8 RGB.
    """
    done = receipts.filter((pc.field("status") == "done") & (pc.list_value_length(pc.field("faces")) > 0))
    count = min(plan.settings.tracking.contact_sheet, done.num_rows)
    if not count:
        return None
    rows = done.take(pa.array(np.linspace(0, done.num_rows - 1, count).astype(np.int64))).to_pylist()
    views = _Views(plan.originals(), plan.settings, paths), _Views(plan.output(), plan.settings, {})
    tiles = [tile for row in rows if (tile := _pair(plan, views, row)) is not None]
    if not tiles:
        return None
    columns = 3 if len(tiles) > 4 else min(2, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    lines = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(lines, axis=0)


def _pair(plan: Plan, places: tuple[_Views, _Views], row: Mapping[str, Any]) -> Pixels | None:
    """Original and result side by side around the faces, with a caption."""
    try:
        views = [place.view(row[name]) for place, name in zip(places, ("item", "output"), strict=True)]
    except (ItemError, OSError, StoreError):  # one picture fewer; its receipt says what became of it
        return None
    film = is_video(row["item"])
    window = (slice(None), slice(None)) if film else _window(row, views[0].shape[1], views[0].shape[0])
    tiles = [_fit(view[window]) for view in views]
    pair = np.concatenate(tiles, axis=1)
    caption = np.full((34, pair.shape[1], 3), 255, np.uint8)
    for line, text in enumerate(_caption(row)):
        cv2.putText(caption, text, (4, 13 + 15 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    framed = np.concatenate([pair, caption], axis=0)
    return np.asarray(cv2.copyMakeBorder(framed, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)), np.uint8)


class _Views:
    """Looks at the pictures of a store, also at those in shards.

    Args:
        store: that holds them.
        settings: of the job.
        paths: where something lies, if not at its name.
    """

    def __init__(self, store: Store, settings: SwapConfig, paths: Mapping[str, str]) -> None:
        self._store, self._settings, self._paths = store, settings, paths
        self._shards = ShardReader(store, settings.shards, 1)
        self._items: dict[str, dict[str, Place]] = {}

    def view(self, item: str) -> Pixels:
        """[H, W, 3] u8 RGB: an image, or the middle of a video.

        Raises:
            ItemError: it cannot be read.
            StoreError: the store does not answer, or refuses.
            FileNotFoundError: it has gone.
        """
        item = self._paths.get(item, item)
        shard, name = split_item(item)
        if is_video(item):
            frame = middle_frame(self._film(shard, name) if shard else f"{self._store.address}/{item}", item)
        else:
            data = self._shards.read(self._place(shard, name)) if shard else self._store.read(item)
            frame = read_image(data, item, self._settings.images).frame
        return np.asarray(frame.permute(1, 2, 0).numpy(), np.uint8)

    def _film(self, shard: str, name: str) -> str:
        place = self._place(shard, name)
        return stretch_address(f"{self._store.address}/{shard}", place.offset, place.size_bytes)

    def _place(self, shard: str, name: str) -> Place:
        if shard not in self._items:
            items = self._shards.items(shard)
            self._items[shard] = {item.name: Place(shard, item.offset, item.size_bytes) for item in items}
        if name not in self._items[shard]:
            raise FileNotFoundError(f"{shard}/{name}")
        return self._items[shard][name]


def _caption(row: Mapping[str, Any]) -> tuple[str, str]:
    swapped = [face for face in row["faces"] if face["action"] == "swapped"]
    name = str(row["item"]) if len(row["item"]) < 60 else "..." + str(row["item"])[-57:]
    names = sorted({face["source"] for face in swapped})
    into = ", ".join(names[:2]) + (" ..." if len(names) > 2 else "")
    blurred = sum(face["action"] == "blurred" for face in row["faces"])
    says = f"{len(swapped)} of {len(row['faces'])} faces -> {into}" if swapped else ""
    says += f"{', ' * bool(says)}{blurred} faces blurred" if blurred else ""
    says = says or f"{len(row['faces'])} faces kept"
    after = [face["source_cosine_after"] for face in swapped if face["source_cosine_after"] is not None]
    before = [face["source_cosine_before"] for face in swapped if face["source_cosine_before"] is not None]
    if after and before:
        says += f", cosine {np.mean(before):.2f} -> {np.mean(after):.2f}"
    return name.encode("ascii", "replace").decode(), says.encode("ascii", "replace").decode()


def _window(row: Mapping[str, Any], width: int, height: int) -> tuple[slice, slice]:
    """A square around all faces with room, or around the largest where all would be too small to see."""
    boxes = np.array([face["box"] for face in row["faces"]], np.float64)
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    largest = boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()]
    side = float((largest[2:] - largest[:2]).max())
    if (high - low).max() > 5.0 * side:
        low, high = largest[:2] - 1.2 * side, largest[2:] + 1.2 * side
    centre, half = (low + high) / 2, max(float((high - low).max()) * 0.8, 16.0)
    left, top = np.clip(centre - half, 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(centre + half, (left + 1, top + 1), (width, height)).astype(int)
    return slice(top, bottom), slice(left, right)


def _fit(view: Pixels) -> Pixels:
    scale = _TILE / max(view.shape[:2])
    size = (max(round(view.shape[1] * scale), 1), max(round(view.shape[0] * scale), 1))
    small = cv2.resize(np.ascontiguousarray(view), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = np.full((_TILE, _TILE, 3), 240, np.uint8)
    top, left = (_TILE - size[1]) // 2, (_TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile


def _values(receipts: pa.Table, name: str) -> NDArray[np.float64]:
    faces = pc.list_flatten(receipts.column("faces"))
    return np.asarray(pc.struct_field(faces, name).drop_null().to_numpy(), np.float64)


def _histograms(receipts: pa.Table) -> bytes | None:
    """Cosines over all faces in one PNG; None when no encoder scored them."""
    values = {label: _values(receipts, name) for name, label in _COSINES.items()}
    if not any(len(v) for v in values.values()):
        return None
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for label, numbers in values.items():
        if len(numbers):
            axes.hist(
                np.clip(numbers, -0.4, 0.999),
                bins=[i / 40 for i in range(-16, 41)],
                histtype="step",
                linewidth=1.8,
                label=f"{label}, median {np.median(numbers):.2f}",
            )
    axes.set_xlabel("cosine of identity embeddings")
    axes.set_ylabel("faces")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _page(settings: SwapConfig, receipts: pa.Table, summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """One HTML file with everything inside it."""
    passthrough = "passthrough: every face was pasted back as it was"
    mode = passthrough if settings.swapper.passthrough else f"source {settings.source}, {settings.swapper.precision}"
    recipe = receipts.column("recipe")[0].as_py()[:12] if receipts.num_rows else ""
    when = time.strftime("%Y-%m-%d %H:%M")
    rates = [(k, f"{v:.1f}") for k, v in summary["faces_per_s"].items()]
    parts = [
        side_by_side(
            html_table(("", "inputs"), summary["items"].items()),
            html_table(("", "faces"), summary["faces"].items()),
            html_table(("stage", "faces/s of one worker"), rates),
            html_table(("reason", "inputs"), summary["reasons"].items()) if summary["reasons"] else "",
        )
    ]
    for name, title in (("contact_sheet.jpg", "Original | result"), ("quality.png", "Identity")):
        if name in pictures:
            parts.append(html_picture(title, name, pictures[name]))
    failed = (
        receipts.filter(pc.field("status") != "done").slice(0, 200).select(["item", "status", "detail"]).to_pylist()
    )
    if failed:
        parts.append("<h2>Without a result (first 200)</h2>")
        parts.append(html_table(("input", "status", "why"), [(r["item"], r["status"], r["detail"]) for r in failed]))
    says = f"{settings.inputs} \N{RIGHTWARDS ARROW} {settings.output}, {mode}; recipe {recipe}, {when}"
    return html_page("simswap swap", says, parts)
