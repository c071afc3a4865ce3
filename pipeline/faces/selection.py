"""Which faces of an image are swapped, and into whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config import SelectionConfig
from pipeline.types import Faces, Floats, Identity, Ints

STAYS = -1
"""Stands in for a source's index: this face is not swapped."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A person to look for: who looks like it becomes a source.

    Attributes:
        embedding: [E] unit length.
        source: index of the source this person becomes.
    """

    embedding: Floats
    source: int


class Selector:
    """Chooses a source for each face.

    Args:
        settings: mode and threshold.
        sources: who faces may become. With several, mode `all` hands them out from left to right, and
            starts over when there are more faces than sources.
        references: for mode `mapping`: whom to look for.
    """

    def __init__(self, settings: SelectionConfig, sources: Sequence[Identity], references: Sequence[Reference]) -> None:
        self._settings = settings
        self._num_sources = len(sources)
        self._references = references

    def __call__(self, faces: Faces) -> Ints:
        """[N] index of each face's source, or `STAYS`; faces are expected from left to right."""
        if self._settings.mode == "mapping":
            return self._by_likeness(faces)
        chosen = np.arange(len(faces), dtype=np.int64) % self._num_sources
        if self._settings.mode == "largest" and len(faces):
            area = np.prod(faces.box[:, 2:] - faces.box[:, :2], axis=1)
            chosen = np.full(len(faces), STAYS, np.int64)
            chosen[area.argmax()] = 0
        return chosen

    def paired(self, faces: Faces, source: int, face: str) -> Ints:
        """[N] one source for the faces that a pair names, `STAYS` for the others.

        Args:
            faces: from left to right.
            source: index of the source.
            face: `all`, `largest` or a number from the left; empty takes the largest in mode `largest`, else all.
        """
        area = np.prod(faces.box[:, 2:] - faces.box[:, :2], axis=1)
        return pair_roles(area, source, face or self._settings.mode)

    def _by_likeness(self, faces: Faces) -> Ints:
        if not len(faces):
            return np.zeros(0, np.int64)
        wanted = np.stack([reference.embedding for reference in self._references])  # [R, E]
        source = np.array([reference.source for reference in self._references], np.int64)
        cosine = faces.embedding @ wanted.T  # [N, R]
        best = cosine.argmax(axis=1)
        sure = cosine[np.arange(len(faces)), best] >= self._settings.min_cosine
        return np.where(sure, source[best], STAYS)


def pair_roles(area: Floats, source: int, face: str) -> Ints:
    """[N] one source for those that a pair names, `STAYS` for the others.

    Args:
        area: [N] of faces from left to right, or of people in the order they are seen.
        source: index of the source.
        face: `all`, `largest` or a number from 0.
    """
    if face.isdigit():
        chosen = np.arange(len(area)) == int(face)
    elif face == "largest" and len(area):
        chosen = np.arange(len(area)) == int(area.argmax())
    else:
        chosen = np.ones(len(area), np.bool_)
    return np.where(chosen, source, STAYS).astype(np.int64)
