"""Everybody that a job has met, so that a person is the same one in every input and becomes one and the same source.

    OUTPUT/_simswap/people.parquet      a row for each person of each input, in the order they were met

It holds embeddings of the people in the originals: leave it out where the results are published as anonymous.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.faces.selection import STAYS
from pipeline.media.storage import write_atomically
from pipeline.swapping.work import BOOKS, Plan
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
        ("embedding", pa.list_(pa.float32())),
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
        self._path = Path(settings.output) / PEOPLE
        self._anonymise = settings.selection.mode == "anonymise"
        self._same = settings.anonymise.same_person
        self._rows: list[dict[str, object]] = []
        self._known: dict[str, list[int]] = {}
        self._sums = np.zeros((0, 0), np.float32)
        self._standins: list[int] = []
        self._saved = 0
        self._load()

    def __len__(self) -> int:
        return len(self._sums)

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
        if key in self._known:
            return np.array(self._known[key], np.int64)
        numbers = [self._recognise(one) for one in embeddings]
        for place, (one, weight) in enumerate(zip(embeddings, weights, strict=True)):
            if numbers[place] is None:  # nobody in this input is somebody else of it whom it did not take for one
                numbers[place] = self._add(one)
            self._learn(key, item, int(numbers[place] or 0), one, float(weight))
        self._known[key] = [int(number or 0) for number in numbers]
        return np.array(self._known[key], np.int64)

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
        if len(self._rows) == self._saved:
            return
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA), buffer, compression="zstd")
        write_atomically(self._path, buffer.getvalue())
        self._saved = len(self._rows)

    def _load(self) -> None:
        if not self._path.exists():
            return
        try:
            rows = pq.read_table(self._path, schema=_SCHEMA).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            problem = f"is damaged ({error})"
            raise OutputError(str(self._path), problem, "Delete the output: who became whom is lost") from error
        names = [source.name for source in self._plan.sources]
        for row in rows:
            if row["recipe"] != self._plan.recipe:
                continue
            one = np.array(row["embedding"], np.float32)
            if row["person"] == len(self._sums):
                self._sums = np.concatenate([self._sums.reshape(-1, len(one)), np.zeros((1, len(one)), np.float32)])
                self._standins.append(names.index(row["standin"]) if row["standin"] in names else STAYS)
            self._sums[row["person"]] += row["weight"] * one
            self._known.setdefault(row["key"], []).append(row["person"])
            self._rows.append(row)
        self._saved = len(self._rows)

    def _recognise(self, one: Floats) -> int | None:
        if not len(self._sums) or not len(one):
            return None
        cosine = self._sums @ one / np.maximum(np.linalg.norm(self._sums, axis=1), 1e-12)
        best = int(cosine.argmax())
        return best if cosine[best] >= self._same else None

    def _add(self, one: Floats) -> int:
        self._sums = np.concatenate([self._sums.reshape(-1, len(one)), np.zeros((1, len(one)), np.float32)])
        self._standins.append(self._standin(one) if self._anonymise else STAYS)
        return len(self._sums) - 1

    def _standin(self, one: Floats) -> int:
        """A source that looks like somebody else; those that the fewest have, in an order that the seed decides."""
        sources, settings = self._plan.sources, self._plan.settings.anonymise
        used = np.bincount([s for s in self._standins if s >= 0], minlength=len(sources))
        order = np.random.default_rng(settings.seed).permutation(len(sources))
        order = order[np.argsort(used[order], kind="stable")]
        return next((int(n) for n in order if _cosine(sources[n], one) < settings.same_person), int(order[0]))

    def _learn(self, key: str, item: str, number: int, one: Floats, weight: float) -> None:
        self._sums[number] += weight * one
        standin = self._standins[number]
        self._rows.append(
            {
                "recipe": self._plan.recipe,
                "key": key,
                "item": item,
                "person": number,
                "standin": self._plan.sources[standin].name if standin >= 0 else "",
                "weight": weight,
                "embedding": one.tolist(),
            }
        )


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
        [K] index of a source, or `STAYS`.
    """
    settings = plan.settings.selection
    if settings.mode == "largest":
        return np.where(np.arange(len(weights)) == (weights.argmax() if len(weights) else 0), 0, STAYS).astype(np.int64)
    if settings.mode == "mapping":
        return _by_likeness(plan, embeddings, settings.min_cosine)
    if settings.mode == "all" and len(plan.sources) == 1:
        return np.zeros(len(weights), np.int64)
    return people.sources(people.meet(key, item, embeddings, weights))


def _by_likeness(plan: Plan, embeddings: Floats, min_cosine: float) -> Ints:
    references: Sequence[Floats] = [reference.embedding for reference in plan.references]
    become = np.full(len(embeddings), STAYS, np.int64)
    for number, one in enumerate(embeddings):
        cosine = np.stack(references) @ one
        if cosine.max() >= min_cosine:
            become[number] = plan.references[int(cosine.argmax())].source
    return become
