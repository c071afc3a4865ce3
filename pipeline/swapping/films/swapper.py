"""A whole film in one process: for tests, notebooks and previews."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import ItemError
from pipeline.faces.selection import STAYS
from pipeline.media.storage import InputFile
from pipeline.media.video_encoding import choose_pixel_format
from pipeline.media.video_joining import join, result_name
from pipeline.swapping.films.cast import Cast, Casting
from pipeline.swapping.films.cut import CutSpan
from pipeline.swapping.films.film import Film, open_film
from pipeline.swapping.films.look import Look, join_seen
from pipeline.swapping.films.render import Render
from pipeline.swapping.swap import Swap
from pipeline.swapping.work import BLURRED, PARTIAL, End, Plan, Work
from pipeline.types import FaceReceipt, Identity, Receipt


class FilmSwapper:
    """All stages of a film.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._look, self._cast = Look(plan), Casting(plan)
        self._cut, self._swap, self._render = CutSpan(plan), Swap(plan), Render(plan)

    def __call__(self, file: InputFile) -> Receipt:
        """One video to its output; whatever is wrong with it is in the receipt."""
        settings = self._plan.settings
        partial = Path(settings.output) / PARTIAL
        partial.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=partial) as folder:
            start = time.perf_counter()
            try:
                film = open_film(settings.inputs, file, settings.videos.segments)
                cast = self._cast(film, join_seen([self._look(film.span(n)) for n in range(len(film.spans))]))
                looked_s = time.perf_counter() - start
                works = [self._span(film, number, cast, folder) for number in range(len(film.spans))]
                receipt = assemble(self._plan, film, cast, works, folder)
            except ItemError as error:
                return film_receipt(self._plan, file, None, None, [], End(error.status, error.code, str(error)))
            analyse_s = looked_s + receipt.analyse_s
            finish_s = time.perf_counter() - start - analyse_s - receipt.swap_s
            return replace(receipt, analyse_s=analyse_s, finish_s=finish_s)

    def _span(self, film: Film, number: int, cast: Cast, folder: str) -> Work:
        span = film.span(number)
        work = self._swap([self._cut(span, cast)])[0]
        if work.end is None:
            self._render(span, work, part_path(folder, number))
        return replace(work, crops=work.crops[:0], masks=None)  # what is left of it is for the receipt


def part_path(folder: str, number: int) -> str:
    """Where the part of a span is."""
    return f"{folder}/part-{number:06d}.mp4"


def assemble(plan: Plan, film: Film, cast: Cast, works: Sequence[Work], folder: str) -> Receipt:
    """Join the parts of a film and make the result visible, whole or not at all.

    Args:
        plan: of the job.
        film: which.
        cast: who became whom.
        works: of its spans, in order, after the generator.
        folder: that holds the parts; the result is put together there too.

    Raises:
        OutputError: the output cannot be written.
    """
    ended = next((work.end for work in works if work.end is not None), None)
    if ended is not None:
        return film_receipt(plan, film.file, film, cast, works, ended)
    parts = [path for n in range(len(film.spans)) if Path(path := part_path(folder, n)).exists()]
    item = result_name(film.file.item)
    whole = Path(folder) / f"whole{Path(item).suffix}"
    notes = join(film.path, film.file.item, film.info, parts, str(whole))
    _, note = choose_pixel_format(plan.settings.videos.encoder, film.info)
    target = Path(plan.settings.output) / item
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = _sha256(whole)
    whole.replace(target)
    detail = " ".join(text for text in (note, *notes) if text)
    return film_receipt(plan, film.file, film, cast, works, None, item, digest, detail)


def film_receipt(
    plan: Plan,
    file: InputFile,
    film: Film | None,
    cast: Cast | None,
    works: Sequence[Work],
    end: End | None,
    output: str = "",
    digest: str = "",
    detail: str = "",
) -> Receipt:
    """What became of a film; a face in it is a track."""
    return Receipt(
        item=file.item,
        status=end.status if end else "done",
        reason=end.code if end else "",
        detail=end.detail if end else detail,
        output="" if end else output,
        input_bytes=file.size_bytes,
        input_mtime_ns=file.mtime_ns,
        input_sha256=_input_sha256(plan, file),
        output_sha256=digest,
        width=film.info.shown[0] if film else 0,
        height=film.info.shown[1] if film else 0,
        recipe=plan.recipe,
        faces=_tracks(cast, works, plan.sources, end is not None) if cast else (),
        analyse_s=sum(work.analyse_s for work in works),
        swap_s=sum(work.swap_s for work in works),
        finish_s=0.0,
        finished_at=time.time(),
    )


def _tracks(cast: Cast, works: Sequence[Work], sources: Sequence[Identity], ended: bool) -> tuple[FaceReceipt, ...]:
    """A receipt a track: where it is first, and the means of its figures."""
    names = ("source_before", "source_after", "owner_after")
    nothing = [np.zeros(0, np.float32)]
    figures = {name: np.concatenate([getattr(work, name) for work in works] or nothing) for name in names}
    receipts = []
    for number in range(len(cast.become)):
        rows = np.flatnonzero(cast.track == number)
        become = int(cast.become[number])
        action = {BLURRED: "blurred", STAYS: "kept"}.get(become, "swapped")
        left, top, right, bottom = (float(v) for v in cast.faces.box[rows[0]])
        means = [_mean(figures[name][rows]) if len(figures[name]) else None for name in names]
        receipts.append(
            FaceReceipt(
                (left, top, right, bottom),
                float(cast.faces.score[rows].mean()),
                "none" if ended else action,
                sources[become].name if become >= 0 else "",
                *means,
            )
        )
    return tuple(receipts)


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _input_sha256(plan: Plan, file: InputFile) -> str:
    """Of the input's bytes; empty where they cannot be read, which is then the receipt's reason."""
    try:
        return "" if file.problem else _sha256(Path(plan.settings.inputs) / file.item)
    except OSError:
        return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
