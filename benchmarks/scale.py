"""How plan and engine grow with the number of inputs, without any model: time an input, and memory of the driver.

    python -m benchmarks.scale plan [--shards 1000] [--items 1000] [--files 100000]
    python -m benchmarks.scale engine [--counts 1000,10000] [--layouts files,shards]

`plan` makes tars that say how many images they hold (links to one file) and loose files, and plans a swap of them as a
command of its own: a new job, and one of which half the shards have their record. `engine` swaps pictures of 64 pixels
whose faces a table knows, with `swapper.passthrough`. Prints of each command the seconds, those of the driver's own
processor time, and its largest memory.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import SwapConfig
from pipeline.faces.sources import identities_table
from pipeline.faces.table import write_faces
from pipeline.runners.books import write_job
from pipeline.runners.planning import plan_job
from pipeline.swapping.receipts import SCHEMA, parquet_bytes
from pipeline.swapping.shards.record import Record, receipts_of, write_record
from pipeline.types import Faces, Identity, Receipt

_SIDE = 64
_SUB = 100
"""Loose files in a folder."""


def picture() -> bytes:
    """A PNG of 64 x 64 pixels, the same for all: only names tell inputs apart."""
    ramp = np.linspace(0, 255, _SIDE, dtype=np.uint8)
    frame = np.stack([np.tile(ramp, (_SIDE, 1)), np.tile(ramp[:, None], (1, _SIDE)), np.full((_SIDE, _SIDE), 90, "u1")])
    buffer = io.BytesIO()
    Image.fromarray(np.moveaxis(frame, 0, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def one_face() -> Faces:
    """A face in the middle of the picture."""
    points = np.array([[[22, 26], [42, 26], [32, 36], [25, 46], [39, 46]]], np.float32)
    box, score = np.array([[14, 10, 50, 56]], np.float32), np.array([0.9], np.float32)
    return Faces(np.zeros(1, np.int64), box, points, score, np.zeros((1, 0), np.float32))


def small_tar(count: int) -> bytes:
    """A tar of pictures named by their number."""
    data, out = picture(), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{number:06d}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_shards(folder: Path, shards: int, items: int, link: bool) -> list[str]:
    """Tars with their stats, links to one another where only names matter; gives the items' names."""
    folder.mkdir(parents=True)
    tar, stats = small_tar(items), json.dumps({"count": items, "successes": items}).encode()
    for number in range(shards):
        path = folder / f"{number:05d}.tar"
        if link and number:
            os.link(folder / "00000.tar", path)
        else:
            path.write_bytes(tar)
        (folder / f"{number:05d}_stats.json").write_bytes(stats)
    return [f"{s:05d}.tar/{n:06d}.png" for s in range(shards) for n in range(items)] if not link else []


def make_files(folder: Path, count: int) -> list[str]:
    """Loose pictures, a hundred in each folder."""
    data, names = picture(), [f"{n // _SUB:05d}/{n:07d}.png" for n in range(count)]
    for name in names:
        path = folder / name
        if name.endswith("00.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return names


def make_settings(root: Path, items: Sequence[str], **changes: Any) -> SwapConfig:
    """A swap without models; the table knows a face for each of these items, in one file."""
    root.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(picture()).hexdigest()
    write_faces(str(root / "table"), [(item, digest, one_face()) for item in items or ["none.png"]], "none")
    vector = np.ones((1, 512), np.float32) / np.sqrt(np.float32(512))
    pq.write_table(identities_table([Identity("somebody", vector[0])]), root / "sources.parquet")
    tree: dict[str, Any] = {
        "inputs": str(root / "in"),
        "output": str(root / "out"),
        "source": str(root / "sources.parquet"),
        "analysis": {"read_table": str(root / "table"), "min_face_px": 8},
        "swapper": {"passthrough": True},
        "tracking": {"enabled": False, "contact_sheet": 0},
        "max_failed_fraction": 0.0,
    }
    return SwapConfig.model_validate(tree | changes)


def command(settings: SwapConfig, root: Path, *words: str) -> tuple[dict[str, Any], float, float, float]:
    """Run `simswap swap`: result, seconds, processor seconds and largest memory (MB) of the driver's process alone."""
    (root / "swap.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
    words = ("-m", "jobs", "swap", str(root / "swap.yaml"), *words)
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    out, said = process.stdout.read(), process.stderr.read()
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        raise RuntimeError(said[-2000:])
    own_s = usage.ru_utime + usage.ru_stime
    return dict(json.loads(out)), time.perf_counter() - start, own_s, usage.ru_maxrss / 1024


def finish_shards(settings: SwapConfig, items: int, shards: int) -> None:
    """Books of a job of which so many shards are done: records, receipts, results of no size."""
    job = plan_job(settings)
    output = job.plan.output()
    write_job(settings.output, {"command": "swap", "recipe": job.plan.recipe, "layout": "shards", "finished": False})
    row = Receipt(
        item="i", status="done", reason="", detail="", output="i", input_bytes=1, input_mtime_ns=1, input_sha256="",
        output_sha256="", width=1, height=1, recipe=job.plan.recipe, faces=(), analyse_s=0.0, swap_s=0.0,
        finish_s=0.0, finished_at=0.0,
    )  # fmt: skip
    receipts = parquet_bytes(pa.Table.from_pylist([asdict(row)] * items, schema=SCHEMA))
    counts: dict[str, dict[str, float]] = {"statuses": {"done": items}, "reasons": {}, "actions": {}, "seconds": {}}
    for shard in job.todo[:shards]:
        output.write(shard.item, b"")
        output.write(receipts_of(shard.item), receipts)
        facts = (shard.item, job.plan.recipe, shard.size_bytes, shard.mtime_ns)
        write_record(output, Record(*facts, "0" * 64, items, counts, []))


def plans(root: Path, shards: int, items: int, files: int) -> Iterator[tuple[str, ...]]:
    """Seconds and memory of each plan."""
    make_shards(root / "shards" / "in", shards, items, link=True)
    settings = make_settings(root / "shards", [])
    result, seconds, own_s, megabytes = command(settings, root, "--dry-run")
    assert result["images_left"] == shards * items, result
    yield f"{shards * items:,} images in {shards:,} tars", f"{seconds:.1f} s", f"{own_s:.1f} s", f"{megabytes:.0f} MB"
    finish_shards(settings, items, shards // 2)
    result, seconds, own_s, megabytes = command(settings, root, "--dry-run")
    assert result["inputs_left"] == shards - shards // 2, result
    yield "the same, half of it done", f"{seconds:.1f} s", f"{own_s:.1f} s", f"{megabytes:.0f} MB"
    make_files(root / "files" / "in", files)
    settings = make_settings(root / "files", [])
    result, seconds, own_s, megabytes = command(settings, root, "--dry-run")
    assert result["inputs_left"] == files, result
    yield f"{files:,} loose files", f"{seconds:.1f} s", f"{own_s:.1f} s", f"{megabytes:.0f} MB"


def engines(root: Path, counts: Sequence[int], layouts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Seconds and memory of whole jobs, and seconds of the same command on the finished job."""
    for layout in layouts:
        for count in counts:
            here = root / f"{layout}-{count}"
            here.mkdir(parents=True)
            each = min(count, 1000)
            names = (
                make_files(here / "in", count)
                if layout == "files"
                else make_shards(here / "in", count // each, each, link=False)
            )
            settings = make_settings(here, names)
            result, seconds, own_s, megabytes = command(settings, here)
            assert result["items"]["done"] == count, result
            _, again, _, _ = command(settings, here)
            took = f"{seconds:.0f} s", f"{1000 * seconds / count:.1f} ms", f"{own_s:.0f} s"
            yield f"{count:,} {layout}", *took, f"{megabytes:.0f} MB", f"{again:.1f} s"


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "engine"))
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--counts", default="1000,10000")
    parser.add_argument("--layouts", default="files,shards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        if options.what == "plan":
            for row in plans(Path(folder), options.shards, options.items, options.files):
                print(" | ".join(row), flush=True)
        else:
            counts = [int(count) for count in options.counts.split(",")]
            for line in engines(Path(folder), counts, options.layouts.split(",")):
                print(" | ".join(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
