"""Photographs as a folder, as tars and as Parquet, here and in a bucket, through the command itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.media.store import open_address
from tests.object_store import ObjectStore
from tests.shard_jobs import Picture, as_folder, as_parquet, as_tars, read_files, write_files

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.assets, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
NUMBER = int(os.environ.get("SIMSWAP_TEST_PHOTOGRAPHS", "2000"))
"""Photographs in each of the six jobs; the same ones come again under other names where there are fewer."""

_TOLD = ("status", "reason", "output_sha256", "input_sha256", "width", "height")


def photographs(assets: Path) -> list[Picture]:
    files = sorted((assets / "photos" / "people").rglob("*.jpg"))
    return [Picture(f"{n:05d}.jpg", files[n % len(files)].read_bytes(), None) for n in range(NUMBER)]


def swapped(root: Path, words: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "jobs", "swap", str(ROOT / "jobs" / "configs" / "swap.yaml"), *words]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, env=variables, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def told_in(folder: str) -> dict[str, tuple[Any, ...]]:
    """Receipts by file name: a file or a folder of them."""
    rows = pq.read_table(folder).to_pylist() if folder.endswith(".parquet") else []
    if not rows:
        for data in read_files(folder).values():
            rows += pq.read_table(io.BytesIO(data)).to_pylist()
    return {
        row["item"].rpartition("/")[2]: (*(row[name] for name in _TOLD), row["detail"].replace(row["item"], "ITEM"))
        for row in rows
    }


def results_in(address: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    files = read_files(address)
    tars = any(name.endswith(".tar") for name in files)
    for name, data in files.items():
        if name.endswith(".tar"):
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                found |= {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith("jpg")}  # type: ignore[union-attr]
        elif name.endswith(".parquet") and not tars:
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
            found |= {row["key"]: row["image"]["bytes"] for row in rows if row["image"] is not None}
        elif name.endswith(".jpg"):
            found[name] = data
    return found


@pytest.mark.timeout(3600)
def test_photographs_come_out_the_same_from_every_layout_and_place(
    tmp_path: Path, assets: Path, pack: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    some = photographs(assets)
    source = sorted((assets / "photos" / "synthetic_sources").iterdir())[0]
    fixed = [f"source={source}", f"models={pack}", "swapper.passthrough=true", "tracking.enabled=false"]
    each = min(250, max(NUMBER // 4, 1))
    layouts = {"folder": as_folder(some), "tars": as_tars(some, each), "parquet": as_parquet(some, each)}
    expected: tuple[dict[str, Any], ...] | None = None
    for layout, files in layouts.items():
        for place in (str(tmp_path), f"s3://{object_store.bucket}/photographs"):
            root = f"{place}/{layout}"
            write_files(f"{root}/in", files)
            start = time.monotonic()
            result = swapped(tmp_path, [f"inputs={root}/in", f"output={root}/out", *fixed])
            print(f"{layout}, {place}: {len(some)} photographs, {time.monotonic() - start:.0f} s")
            assert result["items"]["total"] == len(some)
            found = results_in(f"{root}/out"), receipts(result, tmp_path), result["faces"]
            expected = expected or found
            assert found[0] == expected[0], root
            assert found[1] == expected[1], root
            assert found[2] == expected[2], root
    assert expected is not None
    assert len(expected[0]) > 0.9 * len(some)


def receipts(result: Mapping[str, Any], folder: Path) -> dict[str, tuple[Any, ...]]:
    """Of a job's result, wherever they are."""
    address = result["receipts"]
    if not address.endswith(".parquet"):
        return told_in(address)
    with open_address(address) as file:
        (folder / "receipts.parquet").write_bytes(file.read())
    return told_in(str(folder / "receipts.parquet"))
