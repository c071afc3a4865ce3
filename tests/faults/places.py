"""Where jobs have their inputs and outputs, besides a folder."""

from __future__ import annotations

import pytest
from pyarrow import fs

from tests.faults.jobs import SmallJob
from tests.object_store import ObjectStore


def in_bucket(job: SmallJob, store: ObjectStore, prefix: str) -> SmallJob:
    """The same job with inputs and output in a bucket."""
    there = f"{store.bucket}/{prefix}/in"
    fs.copy_files(str(job.root / "in"), there, fs.LocalFileSystem(), store.filesystem(), use_threads=False)
    here = f"s3://{store.bucket}/{prefix}"
    return SmallJob(job.root, store.environment(), (f"inputs={here}/in", f"output={here}/out"))


def use_store(monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
    """Let the outside checker see the store."""
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
