"""What is done of a film so far, on disk: what a killed job goes on from, and what workers tell each other.

    OUTPUT/_simswap/films/<digest of input and recipe>/
        film.json           the probe, and the spans that it is looked at in
        look-000003.npz     what was seen in a span
        cast.npz            tracks and people of the film, and the pieces that it is swapped in
        roles.npz           which source each person becomes
        part-000003.mp4     an encoded piece
        part-000003.npz     its figures; written last
        end.json            why the film gets no result

Every file is there whole or not at all, and none is changed once it is there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ItemError
from pipeline.media.inputs import InputFile
from pipeline.media.store import BOOKS, Store
from pipeline.media.video import Span, VideoInfo
from pipeline.swapping.films.cast import Cast
from pipeline.swapping.films.film import Film, path_of
from pipeline.swapping.films.look import Seen
from pipeline.swapping.work import End, Plan
from pipeline.types import Faces, Ints

FILMS = f"{BOOKS}/films"
"""Folder in an output for films that are being worked on."""

_FACE_FIELDS = ("frame", "box", "landmarks", "score", "embedding")


@dataclass(frozen=True, slots=True)
class Done:
    """What is done of a film.

    Attributes:
        seen: numbers of the spans that were looked at.
        rendered: numbers of the pieces that are encoded.
    """

    seen: frozenset[int]
    rendered: frozenset[int]


class FilmState:
    """The folder of one film.

    Args:
        plan: of the job.
        file: the input.

    Attributes:
        store: that it lies in: the output.
        key: of the film as it is now, in this recipe.
    """

    def __init__(self, plan: Plan, file: InputFile) -> None:
        self._originals, self._file = plan.originals(), file
        self.store, self.key = plan.output(), _key(plan, file)
        self._folder = f"{FILMS}/{self.key}"

    def film(self) -> Film | None:
        """The film, once it was opened."""
        facts = self._read_json("film.json")
        if facts is None:
            return None
        info = facts["info"]
        for name in ("sample_aspect", "time_base", "rate"):
            info[name] = None if info[name] is None else Fraction(info[name])
        info["keyframes"] = tuple(info["keyframes"])
        spans = tuple(Span(*span) for span in facts["spans"])
        return Film(self._file, path_of(self._originals, self._file), VideoInfo(**info), spans)

    def opened(self, film: Film) -> None:
        """Keep what a probe found."""
        info = asdict(replace(film.info, keyframes=film.info.keyframes[:1]))  # the others have made the spans
        facts = {"info": info, "spans": [[span.begin, span.end] for span in film.spans]}
        self._write("film.json", json.dumps(facts, default=str).encode())

    def seen(self, number: int) -> Seen | None:
        """What was seen in a span, once it was looked at."""
        arrays = self._read_arrays(f"look-{number:06d}.npz")
        if arrays is None:
            return None
        return Seen(arrays["ticks"], arrays["signatures"], _faces(arrays), float(arrays["seconds"]))

    def looked(self, number: int, seen: Seen) -> None:
        """Keep what was seen; embeddings as float16, which moves no cosine by more than 1e-3."""
        half = replace(seen.faces, embedding=seen.faces.embedding.astype(np.float16))
        arrays = _face_arrays(half) | {"ticks": seen.ticks, "signatures": seen.signatures}
        self._write_arrays(f"look-{number:06d}.npz", arrays | {"seconds": np.array(seen.seconds)})

    def cast(self) -> Cast | None:
        """The film's cast, once there is one."""
        arrays = self._read_arrays("cast.npz")
        if arrays is None:
            return None
        pieces = tuple(Span(int(begin), int(end)) for begin, end in arrays.pop("pieces"))
        faces = _faces(arrays)
        return Cast(faces=faces, pieces=pieces, **{k: v for k, v in arrays.items() if k not in _FACE_FIELDS})

    def was_cast(self, cast: Cast) -> None:
        """Keep the cast."""
        names = ("ticks", "track", "bridged", "person", "likeness", "fate", "weight")
        arrays: dict[str, NDArray[Any]] = {name: getattr(cast, name) for name in names}
        arrays["pieces"] = np.array([[piece.begin, piece.end] for piece in cast.pieces], np.int64)
        self._write_arrays("cast.npz", arrays | _face_arrays(cast.faces))

    def roles(self) -> Ints | None:
        """[Q] source of every person, once that was decided."""
        arrays = self._read_arrays("roles.npz")
        return None if arrays is None else arrays["become"]

    def took_roles(self, become: Ints) -> None:
        """Keep who becomes whom."""
        self._write_arrays("roles.npz", {"become": become})

    def part(self, number: int) -> str:
        """Name in the store of the encoded piece."""
        return f"{self._folder}/part-{number:06d}.mp4"

    def figures(self, number: int) -> Mapping[str, NDArray[Any]] | None:
        """The figures of a piece, once it is rendered."""
        return self._read_arrays(f"part-{number:06d}.npz")

    def rendered(self, number: int, figures: Mapping[str, NDArray[Any]]) -> None:
        """Keep the figures of a piece; with them it counts as done."""
        self._write_arrays(f"part-{number:06d}.npz", figures)

    def parts(self) -> list[str]:
        """Names in the store of the encoded pieces that there are, in order; one without frames has none."""
        return [file.name for file in self.store.list(self._folder) if file.name.endswith(".mp4")]

    def done(self) -> Done:
        """Numbers of what was looked at and rendered, by one listing."""
        names = [file.name.rpartition("/")[2] for file in self.store.list(self._folder)]
        seen, rendered = (
            frozenset(int(name[5:11]) for name in names if name.startswith(kind) and name.endswith(".npz"))
            for kind in ("look-", "part-")
        )
        return Done(seen, rendered)

    def end(self) -> End | None:
        """Why the film gets no result, if so."""
        facts = self._read_json("end.json")
        return None if facts is None else End(**facts)

    def ended(self, error: ItemError | End) -> None:
        """Keep why the film gets no result; what is done of it is of no use any more."""
        end = error if isinstance(error, End) else End(error.status, error.code, str(error))
        self._write("end.json", json.dumps(asdict(end)).encode())

    def remove(self) -> None:
        """Forget all of it."""
        self.store.remove_folder(self._folder)

    def _read_json(self, name: str) -> Any:
        data = self.store.read_or_none(f"{self._folder}/{name}")
        return None if data is None else json.loads(data)

    def _read_arrays(self, name: str) -> dict[str, NDArray[Any]] | None:
        data = self.store.read_or_none(f"{self._folder}/{name}")
        if data is None:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return dict(file)

    def _write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._write(name, buffer.getvalue())

    def _write(self, name: str, data: bytes) -> None:
        self.store.write(f"{self._folder}/{name}", data)


def forget_other_films(plan: Plan, files: Iterable[InputFile]) -> None:
    """Remove the state of all films but some: of inputs that have changed or gone, or of another recipe."""
    store, kept = plan.output(), {_key(plan, file) for file in files}
    for key in {file.name.split("/")[2] for file in store.list(FILMS)} - kept:
        store.remove_folder(f"{FILMS}/{key}")
    store.forget_empty(FILMS)


def films_at_work(store: Store) -> int:
    """How many films an output holds that are not finished."""
    return len({file.name.split("/")[2] for file in store.list(FILMS)})


def _key(plan: Plan, file: InputFile) -> str:
    facts = f"{file.item}\0{file.size_bytes}\0{file.mtime_ns}\0{plan.recipe}"
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _face_arrays(faces: Faces) -> dict[str, NDArray[Any]]:
    return {name: getattr(faces, name) for name in _FACE_FIELDS}


def _faces(arrays: Mapping[str, NDArray[Any]]) -> Faces:
    return Faces(*(arrays[name] for name in _FACE_FIELDS))
