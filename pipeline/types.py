"""The data that moves between the parts: small frozen structs of arrays.

Pixels are torch, RGB, channels first: u8 for frames, f32 0..1 for crops. Everything else (geometry,
scores, embeddings) is numpy float32. Letters: T frames, N faces, H W frame, S crop side, E embedding.
A box and landmarks are in frame pixels, (x, y), origin at the centre of the top left pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clip:
    """A run of frames; a still image is a clip with T = 1.

    Attributes:
        frames: [T, 3, H, W] u8 RGB, upright (display orientation applied).
        uri: where the frames came from.
        pts: [T] presentation time of each frame in the stream's own time base; 0 for a still.
    """

    frames: Tensor
    uri: str
    pts: Ints


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces found in a clip.

    Attributes:
        frame: [N] index of the frame each face is in.
        box: [N, 4] left, top, right, bottom in frame pixels; may reach outside the frame.
        landmarks: [N, 5, 2] the two eyes, nose tip, two mouth corners, viewer's left first, frame pixels.
        score: [N] detection score 0..1.
        embedding: [N, E] unit-length identity vectors.
    """

    frame: Ints
    box: Floats
    landmarks: Floats
    score: Floats
    embedding: Floats

    def __len__(self) -> int:
        return len(self.frame)

    def at(self, rows: Ints) -> Faces:
        """Some of the faces, in the order of `rows`."""
        return Faces(self.frame[rows], self.box[rows], self.landmarks[rows], self.score[rows], self.embedding[rows])

    @classmethod
    def joined(cls, parts: Sequence[Faces]) -> Faces:
        """Faces one after the other, as they are; one part at least."""
        names = ("frame", "box", "landmarks", "score", "embedding")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def left_to_right(self) -> Faces:
        """The same faces ordered by the left edge of their boxes: the one order that sources are handed out in."""
        return self.at(np.argsort(self.box[:, 0], kind="stable"))


@dataclass(frozen=True, slots=True)
class Crops:
    """Aligned squares cut out of a clip.

    Attributes:
        pixels: [N, 3, S, S] f32 0..1 RGB.
        frame: [N] index of the frame each crop was cut from.
        to_frame: [N, 2, 3] similarity that takes crop pixels (x, y, 1) to frame pixels.
    """

    pixels: Tensor
    frame: Ints
    to_frame: Floats

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, slots=True)
class Identity:
    """A source: who a face becomes.

    Attributes:
        name: what receipts call it.
        embedding: [E] unit length, the mean over its photographs.
        consent: reference to the consent or licence record; empty when none was given.
        photos: [file name] that the embedding was averaged over.
        outliers: [file name] of photographs left out because they do not look like the others.
    """

    name: str
    embedding: Floats
    consent: str = ""
    photos: tuple[str, ...] = ()
    outliers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FaceReceipt:
    """What became of one face.

    Attributes:
        box: left, top, right, bottom in frame pixels.
        score: detection score 0..1.
        action: `swapped`, `blurred`, `kept`, or `none` where the input got no result.
        source: name of the identity it became; empty unless swapped.
        source_cosine_before: cosine of the original face to the source, -1..1; None when unknown.
        source_cosine_after: cosine of the result to the source.
        owner_cosine_after: cosine of the result to the original owner; high means that the owner is still there.
    """

    box: tuple[float, float, float, float]
    score: float
    action: str
    source: str = ""
    source_cosine_before: float | None = None
    source_cosine_after: float | None = None
    owner_cosine_after: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one input: exactly one for every input of a job.

    Attributes:
        item: path of the input below the job's inputs, with forward slashes.
        status: `done`, `skipped` or `failed`.
        reason: short code that receipts are counted by; empty for an ordinary `done`.
        detail: the whole sentence; empty for an ordinary `done`. Notes on what could not be kept go here.
        output: path of the result below the job's output; empty when there is none.
        input_bytes: size of the input.
        input_mtime_ns: modification time of the input, nanoseconds since 1970: with the size, the cheap
            test for "the same input as then".
        input_sha256: hex digest of the input's bytes; empty when they could not be read.
        output_sha256: hex digest of the output's bytes; empty when there is none.
        width: of the upright frame in pixels; 0 when unknown.
        height: of the upright frame in pixels; 0 when unknown.
        recipe: digest of all that decides the result besides the input.
        faces: what became of each face that was found.
        analyse_s: seconds of one core or device that each stage spent on this input.
        swap_s: the same for the generator's stage.
        finish_s: the same for blending, encoding and writing.
        finished_at: when the receipt was made, seconds since 1970.
    """

    item: str
    status: str
    reason: str
    detail: str
    output: str
    input_bytes: int
    input_mtime_ns: int
    input_sha256: str
    output_sha256: str
    width: int
    height: int
    recipe: str
    faces: tuple[FaceReceipt, ...]
    analyse_s: float
    swap_s: float
    finish_s: float
    finished_at: float
