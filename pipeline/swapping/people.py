"""Everybody that a job has met, so that a person is the same one in every input and becomes one and the same source.

    OUTPUT/_simswap/people.parquet      a row for each person of each input, in the order they were met

It holds embeddings of the people in the originals: leave it out where the results are published as anonymous.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.faces.selection import STAYS
from pipeline.media.layouts import split_item
from pipeline.media.store import BOOKS
from pipeline.swapping.work import BLURRED, Plan
from pipeline.types import Floats, Identity, Ints

PEOPLE = f"{BOOKS}/people.parquet"
"""File in an output that holds them."""

_SCHEMA = pa.schema(
    [
        ("recipe", pa.string()),
        ("key", pa.string()),
        ("item", pa.string()),
        ("person", pa.int64()),
        ("standin", pa.string()),
        ("weight", pa.float32()),
        ("embedding", pa.list_(pa.float16())),
    ]
)


class People:
    """The people of a job.

    Args:
        plan: of the job.

    Raises:
        OutputError: the file of those met before is damaged.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        self._plan = plan
        self._store = plan.output()
        self._anonymise = settings.selection.mode == "anonymise"
        self._same = settings.anonymise.same_person
        self._met: list[_Meeting] = []
        self._known: dict[str, list[int]] = {}
        self._standins: list[int] = []
        self._sums = self._units = np.zeros((0, 0), np.float32)  # grown by doubling; the first `len(self)` rows count
        self._saved = 0
        self._load()

    def __len__(self) -> int:
        return len(self._standins)

    def meet(self, key: str, item: str, embeddings: Floats, weights: Floats) -> Ints:
        """Recognise the people of an input, or get to know them; asked again it says the same.

        Args:
            key: of the input as it is now.
            item: its name.
            embeddings: [K, E] unit length.
            weights: [K] how much was seen of each.

        Returns:
            [K] their numbers in the whole job.
        """
        if key not in self._known:
            exact = embeddings.astype(np.float16).astype(np.float32)  # as kept: a later job then says the same
            found = self._recognise(exact)  # nobody in this input is somebody else of it whom it did not take for one
            self._known[key] = []
            for one, weight, number in zip(exact, weights.tolist(), found, strict=True):
                self._note(key, item, self._add(one) if number is None else number, weight, one)
        return np.array(self._known[key], np.int64)

    def of_folder(self, folder: str, embedding: Floats, weight: float) -> int:
        """The person whose folder it is; whoever they look like, nobody of another folder.

        Args:
            folder: name.
            embedding: [E] unit length, of a picture in it; only the first one counts.
            weight: how much was seen.

        Returns:
            The person's number in the whole job.
        """
        key = f"folder {folder}"
        if key not in self._known:
            self._known[key] = []
            exact = embedding.astype(np.float16).astype(np.float32)
            self._note(key, folder, self._add(exact), weight, exact)
        return self._known[key][0]

    def sources(self, numbers: Ints) -> Ints:
        """[K] index of the source that each becomes."""
        if self._anonymise:
            return np.array([self._standins[number] for number in numbers], np.int64)
        return numbers % len(self._plan.sources)

    def save(self) -> None:
        """Keep who was met since.

        Raises:
            OutputError: no room.
        """
        if len(self._met) == self._saved:
            return
        columns = {f.name: [getattr(one, f.name) for one in self._met] for f in fields(_Meeting)}
        table = pa.table({"recipe": [self._plan.recipe] * len(self._met)} | columns, schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self._store.write(PEOPLE, buffer.getvalue())
        self._saved = len(self._met)

    def _load(self) -> None:
        data = self._store.read_or_none(PEOPLE)
        if data is None:
            return
        try:
            table = pq.read_table(pa.BufferReader(data), schema=_SCHEMA)
        except (pa.ArrowInvalid, OSError) as error:
            subject, mend = f"{self._store.address}/{PEOPLE}", "Delete the output: who became whom is lost"
            raise OutputError(subject, f"is damaged ({error})", mend) from error
        names = [source.name for source in self._plan.sources]
        for row in table.filter(pc.field("recipe") == self._plan.recipe).to_pylist():
            one = np.array(row["embedding"], np.float16)
            if row["person"] == len(self):
                self._grow(len(one))
                self._standins.append(names.index(row["standin"]) if row["standin"] in names else BLURRED)
            self._known.setdefault(row["key"], [])
            self._learn(_Meeting(row["key"], row["item"], row["person"], row["standin"], row["weight"], one))
        self._saved = len(self._met)

    def _recognise(self, embeddings: Floats) -> list[int | None]:
        if not len(self) or not embeddings.shape[1]:
            return [None] * len(embeddings)
        cosine = embeddings @ self._units[: len(self)].T
        best = cosine.argmax(axis=1)
        return [int(who) if row[who] >= self._same else None for who, row in zip(best, cosine, strict=True)]

    def _add(self, one: Floats) -> int:
        self._grow(len(one))
        self._standins.append(self._standin(one) if self._anonymise else STAYS)
        return len(self) - 1

    def _grow(self, size: int) -> None:
        """Room for one more."""
        if len(self) == len(self._sums):
            wider = np.zeros((2, max(2 * len(self), 16), size), np.float32)
            if len(self):
                wider[0, : len(self)], wider[1, : len(self)] = self._sums, self._units
            self._sums, self._units = wider

    def _note(self, key: str, item: str, who: int, weight: float, one: Floats) -> None:
        standin = self._standins[who]
        name = self._plan.sources[standin].name if standin >= 0 else ""
        self._learn(_Meeting(key, item, who, name, weight, one.astype(np.float16)))

    def _standin(self, one: Floats) -> int:
        """A source that looks like somebody else; those that the fewest have, in an order that the seed decides.

        Where all look like this person, `BLURRED`.
        """
        sources, settings = self._plan.sources, self._plan.settings.anonymise
        used = np.bincount([s for s in self._standins if s >= 0], minlength=len(sources))
        order = np.random.default_rng(settings.seed).permutation(len(sources))
        order = order[np.argsort(used[order], kind="stable")]
        return next((int(n) for n in order if _cosine(sources[n], one) < settings.same_person), BLURRED)

    def _learn(self, met: _Meeting) -> None:
        """A meeting makes it clearer what somebody looks like."""
        self._sums[met.person] += met.weight * met.embedding.astype(np.float32)
        length = float(np.linalg.norm(self._sums[met.person]))
        self._units[met.person] = self._sums[met.person] / max(length, 1e-12)
        self._known[met.key].append(met.person)
        self._met.append(met)


@dataclass(frozen=True, slots=True)
class _Meeting:
    """One person of one input."""

    key: str
    item: str
    person: int
    standin: str
    weight: float
    embedding: NDArray[np.float16]


def _cosine(source: Identity, one: Floats) -> float:
    return float(source.embedding @ one) if len(source.embedding) == len(one) else -1.0


def choose_sources(plan: Plan, people: People, key: str, item: str, embeddings: Floats, weights: Floats) -> Ints:
    """Who the people of an input become.

    Args:
        plan: of the job.
        people: met so far.
        key: of the input as it is now.
        item: its name.
        embeddings: [K, E] unit length.
        weights: [K] how much was seen of each.

    Returns:
        [K] index of a source, `STAYS` or `BLURRED`.
    """
    settings = plan.settings.selection
    if settings.mode == "largest":
        return np.where(np.arange(len(weights)) == (weights.argmax() if len(weights) else 0), 0, STAYS).astype(np.int64)
    if settings.mode == "mapping":
        return _by_likeness(plan, embeddings, settings.min_cosine)
    if settings.mode == "all" and len(plan.sources) == 1:
        return np.zeros(len(weights), np.int64)
    folder = folder_of(item)
    if settings.mode != "anonymise" or plan.settings.anonymise.people != "folders" or not folder or not len(weights):
        return people.sources(people.meet(key, item, embeddings, weights))
    numbers, main = np.zeros(len(weights), np.int64), int(weights.argmax())
    numbers[main] = people.of_folder(folder, embeddings[main], float(weights[main]))
    others = np.arange(len(weights)) != main
    numbers[others] = people.meet(key, item, embeddings[others], weights[others])
    return people.sources(numbers)


def folder_of(item: str) -> str:
    """The folder of an input, in a shard that of the member; empty where it is in none."""
    return split_item(item)[1].rpartition("/")[0]


def _by_likeness(plan: Plan, embeddings: Floats, min_cosine: float) -> Ints:
    references: Sequence[Floats] = [reference.embedding for reference in plan.references]
    become = np.full(len(embeddings), STAYS, np.int64)
    for number, one in enumerate(embeddings):
        cosine = np.stack(references) @ one
        if cosine.max() >= min_cosine:
            become[number] = plan.references[int(cosine.argmax())].source
    return become
