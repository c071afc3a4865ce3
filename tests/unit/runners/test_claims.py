from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.media.store import Store
from pipeline.runners.claims import CLAIMS, claimed, forget_dead, living_claims, read_claims


def _claim_of_a_dead_process(store: Store) -> str:
    """A claim as a job leaves it that was killed here."""
    with claimed(store):
        (facts,) = read_claims(store).values()
    name = f"{CLAIMS}/dead.json"
    store.write(name, json.dumps(facts | {"started": "1"}).encode())
    return name


def test_one_job_at_a_time_works_on_an_output_and_the_other_hears_which_one_does(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with claimed(store):
        with pytest.raises(OutputError, match=re.escape(f"process {os.getpid()} on")), claimed(store):
            pass
        assert len(living_claims(store)) == 1
    assert read_claims(store) == {}
    assert not (tmp_path / CLAIMS).exists()


def test_the_claim_of_a_dead_process_stops_nobody_and_goes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    dead = _claim_of_a_dead_process(store)
    assert living_claims(store) == []
    with claimed(store):
        assert dead not in read_claims(store)


def test_forgetting_the_dead_leaves_the_claim_of_who_lives(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    _claim_of_a_dead_process(store)
    with claimed(store):
        _claim = next(iter(read_claims(store)))
        store.write(f"{CLAIMS}/damaged.json", b"{")
        forget_dead(store)
        assert list(read_claims(store)) == [_claim]
