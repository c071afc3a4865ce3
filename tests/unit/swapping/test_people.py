from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import ModelConfig, SwapConfig
from pipeline.errors import OutputError
from pipeline.model.checkpoint import CheckpointHeader, EncoderReference
from pipeline.swapping import Plan
from pipeline.swapping.people import PEOPLE, People, choose_sources
from pipeline.types import Floats, Identity
from tests.factories import unit_vectors

WHO = unit_vectors(12, 64, seed=3)
GALLERY = unit_vectors(4, 64, seed=8)


def plan(root: Path, gallery: Floats = GALLERY, recipe: str = "r", **changes: object) -> Plan:
    tree = {"inputs": str(root / "in"), "output": str(root / "out"), "source": "s", "models": "m",
            "swapper": {"passthrough": True}, "selection": {"mode": "anonymise"}} | changes  # fmt: skip
    sources = tuple(Identity(f"s{n}", one) for n, one in enumerate(gallery))
    header = CheckpointHeader(ModelConfig(), EncoderReference("none", ""))
    return Plan(SwapConfig.model_validate(tree), header, sources, (), recipe)


def near(who: int, seed: int) -> Floats:
    mixed = WHO[who] + 0.5 * unit_vectors(1, 64, seed)[0]
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def ask(people: People, key: str, *who: Floats) -> list[int]:
    return [int(n) for n in people.meet(key, key, np.stack(who), np.ones(len(who), np.float32))]


def test_a_person_is_the_same_one_in_every_input(tmp_path: Path) -> None:
    people = People(plan(tmp_path))
    assert ask(people, "a", near(0, 1), near(1, 2)) == [0, 1]
    assert ask(people, "b", near(2, 3), near(1, 4), near(0, 5)) == [2, 1, 0]
    assert ask(people, "a", near(3, 6), near(4, 7)) == [0, 1], "asked again it says what it said"
    assert len(people) == 3


def test_who_was_met_is_known_to_the_next_job_and_keeps_the_source(tmp_path: Path) -> None:
    first = People(plan(tmp_path))
    numbers = ask(first, "a", *(near(n, n) for n in range(6)))
    sources = first.sources(np.array(numbers)).tolist()
    first.save()
    stamp = (tmp_path / "out" / PEOPLE).stat().st_mtime_ns
    again = People(plan(tmp_path))
    assert ask(again, "b", near(5, 50), near(0, 51)) == [5, 0]
    assert again.sources(np.arange(6)).tolist() == sources
    People(plan(tmp_path)).save()
    assert (tmp_path / "out" / PEOPLE).stat().st_mtime_ns == stamp, "nothing new, nothing written"
    assert len(People(plan(tmp_path, recipe="another"))) == 0


def test_stand_ins_are_shared_out_evenly_and_differ_by_the_seed(tmp_path: Path) -> None:
    def sources(seed: int) -> list[int]:
        people = People(plan(tmp_path, anonymise={"seed": seed}))
        return [int(n) for n in people.sources(np.array(ask(people, "a", *WHO[:8])))]

    assert sorted(sources(0)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sources(0) == sources(0)
    assert any(sources(seed) != sources(0) for seed in range(1, 5))


def test_nobody_becomes_who_looks_like_them(tmp_path: Path) -> None:
    for seed in range(6):
        people = People(plan(tmp_path, gallery=np.stack([WHO[0], GALLERY[0]]), anonymise={"seed": seed}))
        assert people.sources(np.array(ask(people, "a", near(0, 1)))).tolist() == [1]


def test_several_sources_are_handed_out_by_person_over_all_inputs(tmp_path: Path) -> None:
    job = plan(tmp_path, selection={"mode": "all"})
    people = People(job)
    one = choose_sources(job, people, "a", "a", np.stack([near(0, 1), near(1, 2)]), np.ones(2, np.float32))
    other = choose_sources(job, people, "b", "b", np.stack([near(2, 3), near(0, 4)]), np.ones(2, np.float32))
    assert (one.tolist(), other.tolist()) == ([0, 1], [2, 0])


def test_a_damaged_file_of_people_is_said_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out" / PEOPLE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"broken")
    with pytest.raises(OutputError, match=r"people\.parquet: is damaged"):
        People(plan(tmp_path))
    assert path.read_bytes() == b"broken"


def test_a_folder_is_one_person_and_nobody_of_another_folder(tmp_path: Path) -> None:
    job = plan(tmp_path, anonymise={"people": "folders"})
    people = People(job)

    def become(item: str, *who: Floats) -> list[int]:
        size = np.arange(len(who), 0, -1, dtype=np.float32)  # the first is the largest
        return [int(n) for n in choose_sources(job, people, item, item, np.stack(who), size)]

    anna = become("anna/1.jpg", near(0, 1))
    assert become("anna/2.jpg", near(5, 2)) == anna, "whatever the face looks like"
    twin = become("berta/1.jpg", near(0, 1))
    assert twin != anna, "a twin is another person"
    assert become("00000.tar/anna/3.jpg", near(0, 9), near(0, 1))[0] == anna[0]
    assert len(become("nobody.jpg", near(7, 1))) == 1
    people.save()
    again = People(job)
    assert choose_sources(job, again, "x", "anna/9.jpg", near(3, 3)[None], np.ones(1, np.float32)).tolist() == anna
