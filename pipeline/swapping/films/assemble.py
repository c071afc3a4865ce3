"""The parts of a film put together, made visible whole or not at all, and its receipt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ItemError, StoreError
from pipeline.faces.packs import file_digest
from pipeline.faces.selection import STAYS
from pipeline.media.inputs import InputFile
from pipeline.media.stretch import digest_of
from pipeline.media.video_encoding import choose_pixel_format
from pipeline.media.video_joining import join, result_name
from pipeline.swapping.films.cast import UNSURE, Cast
from pipeline.swapping.films.film import Film, check_unchanged, path_of
from pipeline.swapping.films.state import FilmState
from pipeline.swapping.shards.state import Made, ShardState
from pipeline.swapping.work import BLURRED, DONE_BY, End, Plan
from pipeline.types import FaceReceipt, Identity, Ints, Receipt

Figures = Sequence[Mapping[str, NDArray[Any]]]


def assemble(plan: Plan, file: InputFile) -> Receipt:
    """Join the parts of a film of which every piece is done, and make the result visible.

    What becomes of a film in a shard goes into a part of that, result and receipt together.

    Args:
        plan: of the job.
        file: the input.

    Raises:
        OutputError: the output cannot be written.
    """
    receipt, data = _assembled(plan, file)
    if file.shard:
        ShardState(plan.output(), file.state).add([Made(file.number, receipt, data)])
    return receipt


def _assembled(plan: Plan, file: InputFile) -> tuple[Receipt, bytes]:
    """The receipt; of a film in a shard also its bytes, which are not visible then."""
    start = time.perf_counter()
    state = FilmState(plan, file)
    film, cast, roles, end = state.film(), state.cast(), state.roles(), state.end()
    if film is None or cast is None or roles is None or end is not None:
        unknown = End("failed", "unreadable", f"{file.item}: was not opened.")
        return _receipt(plan, file, film, start, end=end or unknown), b""
    figures = [found for number in range(len(cast.pieces)) if (found := state.figures(number)) is not None]
    looked_s = sum((seen.seconds for n in range(len(film.spans)) if (seen := state.seen(n)) is not None), 0.0)
    try:
        output, digest, detail, data = _joined(plan, film, state)
    except ItemError as error:
        return _receipt(plan, file, film, start, end=End(error.status, error.code, str(error))), b""
    reason, told = _told(plan, cast, roles, figures)
    detail = " ".join(text for text in (detail, told) if text)
    return _receipt(plan, file, film, start, cast, figures, looked_s, output, digest, reason, detail), data


def _joined(plan: Plan, film: Film, state: FilmState) -> tuple[str, str, str, bytes]:
    """The result's name below the output, its digest, what it could not keep, and in a shard its bytes."""
    item, store, data = result_name(film.file.item), state.store, b""
    pictures = plan.settings.selection.mode != "anonymise"
    with ExitStack() as stack, store.making(item) as whole:
        parts = [str(stack.enter_context(store.fetched(name))) for name in state.parts()]
        notes = join(film.path, film.file.item, film.info, parts, str(whole), pictures)
        digest = file_digest(str(whole))
        check_unchanged(plan.originals(), film.file)
        if film.file.shard:
            data = whole.read_bytes()
            whole.unlink()
    _, note = choose_pixel_format(plan.settings.videos.encoder, film.info)
    return item, digest, " ".join(text for text in (note, *notes) if text), data


def _told(plan: Plan, cast: Cast, roles: Ints, figures: Figures) -> tuple[str, str]:
    """What policies did to a film that gets a result: a short code, and sentences."""
    policy, said = plan.settings.policy, list[str]()
    become = np.concatenate([part["become"] for part in figures])
    reason = "" if (become != STAYS).any() else "not_selected"
    if not len(cast.track):
        reason = f"no_face: {DONE_BY[policy.no_face]}"
    unsure = (cast.fate == UNSURE) & (roles[cast.person] >= 0) if len(cast.person) else cast.fate == UNSURE
    if unsure.any():
        reason = f"low_confidence: {DONE_BY[policy.low_confidence]}"
        said.append(f"{int(unsure.sum())} of {len(unsure)} tracks were not sure enough.")
    hidden = np.isin(cast.track, _hidden(cast))
    if hidden.any():
        frames = len(np.unique(cast.faces.frame[hidden]))
        said.append(f"In {frames} frames the place of a face was blurred that was not found there.")
    leaks = np.concatenate([part["leaks"] for part in figures])
    if len(leaks):
        reason = f"leak: {DONE_BY[policy.leak]}"
        blurred = "; their tracks were blurred in these segments"
        did = blurred if policy.leak == "blur" else ", and stayed by policy.leak"
        said.append(f"{len(leaks)} faces could be recognised, up to a cosine of {leaks.max():.2f}{did}.")
    return reason, " ".join(said)


def _hidden(cast: Cast) -> NDArray[np.int64]:
    """Tracks that were never seen."""
    seen = np.bincount(cast.track, weights=~cast.bridged, minlength=len(cast.person))
    return np.flatnonzero(seen == 0)


def _receipt(
    plan: Plan,
    file: InputFile,
    film: Film | None,
    start: float,
    cast: Cast | None = None,
    figures: Figures = (),
    looked_s: float = 0.0,
    output: str = "",
    digest: str = "",
    reason: str = "",
    detail: str = "",
    end: End | None = None,
) -> Receipt:
    """What became of a film; a face in it is a track."""
    seconds = np.sum([part["seconds"] for part in figures] or [np.zeros(3)], axis=0)
    return Receipt(
        item=file.item,
        status=end.status if end else "done",
        reason=end.code if end else reason,
        detail=end.detail if end else detail,
        output=output,
        input_bytes=file.size_bytes,
        input_mtime_ns=file.mtime_ns,
        input_sha256=_input_sha256(plan, file),
        output_sha256=digest,
        width=film.info.shown[0] if film else 0,
        height=film.info.shown[1] if film else 0,
        recipe=plan.recipe,
        faces=_tracks(cast, figures, plan.sources) if cast else (),
        analyse_s=float(looked_s + seconds[0]),
        swap_s=float(seconds[1]),
        finish_s=float(seconds[2] + time.perf_counter() - start),
        finished_at=time.time(),
    )


def _tracks(cast: Cast, figures: Figures, sources: Sequence[Identity]) -> tuple[FaceReceipt, ...]:
    """A receipt a track that was seen: where it is first, and the means of its figures."""
    names = ("source_before", "source_after", "owner_after")
    joined = {name: np.concatenate([part[name] for part in figures]) for name in (*names, "become")}
    hidden, receipts = set(_hidden(cast).tolist()), []
    for number in range(len(cast.person)):
        rows = np.flatnonzero(cast.track == number)
        if number in hidden:
            continue
        become = int(joined["become"][rows[0]])
        action = {BLURRED: "blurred", STAYS: "kept"}.get(become, "swapped")
        left, top, right, bottom = (float(v) for v in cast.faces.box[rows[0]])
        receipts.append(
            FaceReceipt(
                (left, top, right, bottom),
                float(cast.faces.score[rows].mean()),
                action,
                sources[become].name if become >= 0 else "",
                *(_mean(joined[name][rows]) for name in names),
            )
        )
    return tuple(receipts)


def _mean(values: NDArray[np.float32]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _input_sha256(plan: Plan, file: InputFile) -> str:
    """Of the input's bytes; empty where they cannot be read, which is then the receipt's reason."""
    try:
        return "" if file.problem else digest_of(path_of(plan.originals(), file))
    except (OSError, StoreError):
        return ""
