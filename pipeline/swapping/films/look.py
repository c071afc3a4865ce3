"""First look at a span: its frames' times, what they look like, and the faces in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import RefusedInputError
from pipeline.faces.analysis import FaceAnalyser
from pipeline.media.shots import signature
from pipeline.media.video import Span
from pipeline.media.video_decoding import decode, shown
from pipeline.swapping.films.film import Film
from pipeline.swapping.work import Plan, use_threads
from pipeline.types import Faces, Ints


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a span found; of several spans, joined, it is that of a film.

    Attributes:
        ticks: [T] times of the frames.
        signatures: [T, K] u8 of the frames (`media.shots`).
        faces: all that were found, in pixels of the frame as it is shown; `frame` counts from the span's first.
        seconds: it took.
    """

    ticks: Ints
    signatures: NDArray[np.uint8]
    faces: Faces
    seconds: float


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

    def __call__(self, film: Film, span: Span) -> Seen:
        """Look at every frame.

        Raises:
            ItemError: the span cannot be decoded, or a frame holds more faces than allowed.
        """
        start = time.perf_counter()
        ticks, signatures, found = list[int](), list[NDArray[np.uint8]](), list[Faces]()
        for frame in decode(film.path, film.file.item, film.info, span, self._threads):
            picture = shown(frame, film.info)
            ticks.append(frame.pts or 0)
            signatures.append(signature(picture.permute(1, 2, 0).numpy()))
            found.append(self.faces(picture, film.file.item))
        pictures = np.stack(signatures) if signatures else np.zeros((0, 0), np.uint8)
        faces = _joined(found, np.arange(len(found)))
        return Seen(np.array(ticks, np.int64), pictures, faces, time.perf_counter() - start)

    def faces(self, picture: Tensor, item: str) -> Faces:
        """The faces of one picture, [3, H, W] u8 RGB.

        Raises:
            ItemError: it holds more faces than allowed.
        """
        faces, _ = self._analyser(picture)
        if len(faces) > self._most:
            problem = f"{len(faces)} faces in one frame, the limit is {self._most}"
            raise RefusedInputError(item, problem, "Raise analysis.max_faces", code="too_many_faces")
        return faces


def join_seen(parts: Sequence[Seen]) -> Seen:
    """The looks at a film's spans, in order, as one."""
    filled = [part for part in parts if len(part.ticks)]
    firsts = np.cumsum([0, *(len(part.ticks) for part in filled)])[:-1]
    if not filled:
        return parts[0]
    faces = _joined([part.faces for part in filled], firsts)
    ticks, signatures = (np.concatenate([getattr(p, name) for p in filled]) for name in ("ticks", "signatures"))
    return Seen(ticks, signatures, faces, sum(part.seconds for part in parts))


def _joined(parts: Sequence[Faces], firsts: Ints) -> Faces:
    """Faces of several stretches of frames; each begins at its own frame."""
    kept = [(part, first) for part, first in zip(parts, firsts, strict=True) if len(part)]
    if not kept:
        none = np.zeros(0, np.float32)
        size = parts[0].embedding.shape[1] if parts else 0
        return Faces(none.astype(np.int64), none.reshape(0, 4), none.reshape(0, 5, 2), none, none.reshape(0, size))
    return Faces.joined([replace(part, frame=part.frame + first) for part, first in kept])
