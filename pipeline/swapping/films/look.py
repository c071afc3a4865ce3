"""First look at a span: its frames' times, what they look like, and the faces in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RefusedInputError
from pipeline.faces.analysis import FaceAnalyser
from pipeline.media.shots import signature
from pipeline.media.video_decoding import decode, shown
from pipeline.swapping.films.film import FilmSpan
from pipeline.swapping.work import Plan, use_threads
from pipeline.types import Faces, Ints


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a span found; of several spans, joined, it is that of a film.

    Attributes:
        ticks: [T] times of the frames.
        signatures: [T, K] u8 of the frames (`media.shots`).
        faces: all that were found, in pixels of the frame as it is shown; `frame` counts from the span's first.
    """

    ticks: Ints
    signatures: NDArray[np.uint8]
    faces: Faces


class Look:
    """Decodes a span, and finds and embeds its faces.

    Args:
        plan: of the job; it has a model pack.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        use_threads(settings.pools.analyse.threads)
        self._threads, self._most = settings.pools.analyse.threads, settings.analysis.max_faces
        model = plan.header.config
        self._analyser = FaceAnalyser(
            str(settings.models), model.template, model.crop_size, settings.analysis, self._threads
        )

    def __call__(self, span: FilmSpan) -> Seen:
        """Look at every frame.

        Raises:
            ItemError: the span cannot be decoded, or a frame holds more faces than allowed.
        """
        ticks, signatures, found = list[int](), list[NDArray[np.uint8]](), list[Faces]()
        for frame in decode(span.film.path, span.film.file.item, span.film.info, span.span, self._threads):
            picture = shown(frame, span.film.info)
            faces, _ = self._analyser(picture)
            if len(faces) > self._most:
                problem = f"{len(faces)} faces in one frame, the limit is {self._most}"
                raise RefusedInputError(span.film.file.item, problem, "Raise analysis.max_faces", code="too_many_faces")
            ticks.append(frame.pts or 0)
            signatures.append(signature(picture.permute(1, 2, 0).numpy()))
            found.append(faces)
        pictures = np.stack(signatures) if signatures else np.zeros((0, 0), np.uint8)
        return Seen(np.array(ticks, np.int64), pictures, _joined(found, np.arange(len(found))))


def join_seen(parts: Sequence[Seen]) -> Seen:
    """The looks at a film's spans, in order, as one."""
    filled = [part for part in parts if len(part.ticks)]
    firsts = np.cumsum([0, *(len(part.ticks) for part in filled)])[:-1]
    if not filled:
        return parts[0]
    faces = _joined([part.faces for part in filled], firsts)
    return Seen(np.concatenate([p.ticks for p in filled]), np.concatenate([p.signatures for p in filled]), faces)


def _joined(parts: Sequence[Faces], firsts: Ints) -> Faces:
    """Faces of several stretches of frames; each begins at its own frame."""
    kept = [(part, first) for part, first in zip(parts, firsts, strict=True) if len(part)]
    if not kept:
        none = np.zeros(0, np.float32)
        size = parts[0].embedding.shape[1] if parts else 0
        return Faces(none.astype(np.int64), none.reshape(0, 4), none.reshape(0, 5, 2), none, none.reshape(0, size))
    frame = np.concatenate([part.frame + first for part, first in kept])
    names = ("box", "landmarks", "score", "embedding")
    return Faces(frame, *(np.concatenate([getattr(part, name) for part, _ in kept]) for name in names))
