"""Where jobs have their inputs and outputs, besides a folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own of that size, as tmpfs writes sizes; the test is skipped where it cannot be had."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here: that needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
