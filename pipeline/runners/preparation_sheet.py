"""The contact sheet of a prepared set: people in rows, and what was left out with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from pipeline.config import PrepareConfig
from pipeline.errors import ItemError
from pipeline.media.images import read_image
from pipeline.preparation.assembly import Gathered
from pipeline.preparation.people import People
from pipeline.preparation.shards import read_crops
from pipeline.runners.page import Pixels
from pipeline.types import Ints

_TILE, _GAP, _EDGE, _LABEL, _LINE = 128, 6, 24, 170, 16
"""Sizes in pixels: a picture, the space between two, the margin, the column of names, a line of text."""

_COLUMNS = 8
_DROPPED_ROWS = 2
_DARK, _GREY, _RED, _PAPER = (35, 38, 42), (125, 130, 136), (176, 58, 46), (255, 255, 255)

Tile = tuple[Image.Image, Sequence[str]]  # a picture and the lines under it


class Sheet:
    """A white sheet that grows downwards."""

    def __init__(self) -> None:
        self._width = 2 * _EDGE + _LABEL + _COLUMNS * (_TILE + _GAP) - _GAP
        self._strips: list[Image.Image] = []

    def text(self, says: str, size: int = 20) -> None:
        """A headline."""
        _, draw = self._strip(size + 20)
        draw.text((_EDGE, 10), says, _DARK, ImageFont.load_default(size))

    def row(self, name: str, says: str, tiles: Sequence[Tile]) -> None:
        """A name with a remark, and pictures with their captions beside it."""
        lines = max((len(caption) for _, caption in tiles), default=0)
        strip, draw = self._strip(_TILE + _GAP + lines * _LINE + (_GAP if lines else 0))
        draw.text((_EDGE, 4), _shortened(name, 20), _DARK, ImageFont.load_default(15))
        draw.text((_EDGE, 26), says, _GREY, ImageFont.load_default(13))
        for column, (picture, caption) in enumerate(tiles):
            left = _EDGE + _LABEL + column * (_TILE + _GAP)
            strip.paste(picture, (left, 0))
            for number, line in enumerate(caption):
                font, color = ImageFont.load_default(12), _GREY if number else _RED
                draw.text((left, _TILE + 2 + number * _LINE), _shortened(line, 21), color, font)

    def pixels(self) -> Pixels:
        """[h, w, 3] u8 RGB."""
        sheet = Image.new("RGB", (self._width, sum(strip.height for strip in self._strips) + 2 * _EDGE), _PAPER)
        top = _EDGE
        for strip in self._strips:
            sheet.paste(strip, (0, top))
            top += strip.height
        return np.asarray(sheet, np.uint8)

    def _strip(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        strip = Image.new("RGB", (self._width, height), _PAPER)
        self._strips.append(strip)
        return strip, ImageDraw.Draw(strip)


def contact_sheet(settings: PrepareConfig, gathered: Gathered, people: People, photos: pa.Table) -> Pixels | None:
    """Some people in rows and some photographs that were left out; None when the setting wants none.

    Returns:
        [h, w, 3] u8 RGB.
    """
    if not settings.tracking.contact_sheet:
        return None
    sheet, counts = Sheet(), people.counts()
    kept = int((people.kept).sum())
    sheet.text(f"{kept:,} faces of {int((counts > 0).sum()):,} people, from {photos.num_rows:,} photographs")
    for person in _shown(counts, settings.tracking.contact_sheet):
        faces = np.flatnonzero((people.identity == person) & people.kept)[:_COLUMNS]
        places = zip(gathered.shard[faces].tolist(), gathered.row[faces].tolist(), strict=True)
        tiles: list[Tile] = [(_crop(data), ()) for data in read_crops(settings.output, places)]
        sheet.row(people.names[person], f"{counts[person]} photographs", tiles)
    _add_dropped(sheet, settings, photos)
    return sheet.pixels()


def _shown(counts: Ints, rows: int) -> Ints:
    """Identities spread evenly over those that fill a row, or over all where few do."""
    known = np.flatnonzero(counts)
    full = known[counts[known] >= _COLUMNS]
    if len(full) < rows:
        full = known[np.argsort(-counts[known], kind="stable")][:rows]
    return np.asarray(full[np.unique(np.linspace(0, len(full) - 1, min(rows, len(full))).astype(np.int64))], np.int64)


def _add_dropped(sheet: Sheet, settings: PrepareConfig, photos: pa.Table) -> None:
    dropped = photos.filter(pc.field("status") == "dropped")
    if not dropped.num_rows:
        return
    sheet.text(f"Left out: {dropped.num_rows:,} photographs")
    rows = list(_mixed(dropped, _COLUMNS * _DROPPED_ROWS))
    tiles: list[Tile] = [(_view(settings, row), (row["reason"].replace("_", " "), _saying(row))) for row in rows]
    for start in range(0, len(tiles), _COLUMNS):
        sheet.row("", "", tiles[start : start + _COLUMNS])


def _mixed(dropped: pa.Table, count: int) -> Iterator[Mapping[str, Any]]:
    """Rows of every reason in turn, the commonest first."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for number, reason in enumerate(dropped.column("reason").to_pylist()):
        if len(by_reason[reason]) < count:
            by_reason[reason].append(number)
    in_turn = chain.from_iterable(zip_longest(*sorted(by_reason.values(), key=len, reverse=True)))
    chosen = sorted([number for number in in_turn if number is not None][:count])
    rows = dropped.take(pa.array(chosen, pa.int64())).to_pylist()
    yield from sorted(rows, key=lambda row: (-len(by_reason[row["reason"]]), row["reason"]))


def _saying(row: Mapping[str, Any]) -> str:
    """The number that decided, in a few letters; else the photograph's name."""
    numbers = {
        "too_small": ("face_px", "{:.0f} px"),
        "blurred": ("sharpness", "sharpness {:.2f}"),
        "low_score": ("score", "score {:.2f}"),
        "turned_away": ("yaw", "yaw {:.0f}"),
        "outlier": ("cosine", "cosine {:.2f}"),
    }
    name, form = numbers.get(row["reason"], ("", ""))
    value = row.get(name)
    return Path(row["path"]).name if value is None else form.format(value)


def _crop(data: bytes) -> Image.Image:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return _square(np.asarray(pixels, np.uint8))


def _view(settings: PrepareConfig, row: Mapping[str, Any]) -> Image.Image:
    """The face of a photograph with some room, or the middle of it; grey where it cannot be read."""
    try:
        data = (Path(settings.inputs) / row["path"]).read_bytes()
        frame = read_image(data, row["path"], settings.images).frame.permute(1, 2, 0).numpy()
    except (ItemError, OSError):
        return Image.new("RGB", (_TILE, _TILE), (225, 226, 228))
    height, width = frame.shape[:2]
    box = np.array(row["box"] if row["box"] is not None else [0, 0, width, height], np.float64)
    room = 1.6 if row["box"] is not None else 1.0
    side = int(np.clip(room * (box[2:] - box[:2]).max(), 1, min(width, height)))
    left, top = np.clip((box[:2] + box[2:] - side) / 2, 0, (width - side, height - side)).astype(int)
    return _square(frame[top : top + side, left : left + side])


def _square(pixels: Pixels) -> Image.Image:
    shrinks = pixels.shape[0] > _TILE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return Image.fromarray(cv2.resize(np.ascontiguousarray(pixels), (_TILE, _TILE), interpolation=method))


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else "…" + text[1 - letters :]
