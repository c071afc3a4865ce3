"""Three pools against one fused actor against a plain loop, over the same photographs in one run.

    python benchmarks/engine.py --checkpoint FILE --models PACK --photos FOLDER [--count 200] [key=value ...]

Prints images and faces per second of each engine, start-up excluded, and the ratio to the plain loop.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from benchmarks.stages import show
from pipeline.config import SwapConfig
from pipeline.runners.cluster import start_ray
from pipeline.runners.engine import blocks, in_pools, pools_needs
from pipeline.runners.planning import Job, plan_job
from pipeline.runners.wire import receipts_to_summary, table_to_files
from pipeline.settings import load_settings
from pipeline.swapping import FaceSwapper, Plan


class Fused:
    """All three stages in one actor."""

    def __init__(self, plan: Plan) -> None:
        self._swapper = FaceSwapper(plan)

    def __call__(self, files: pa.Table) -> pa.Table:
        """Rows of inputs to rows of counts."""
        return receipts_to_summary([self._swapper(file) for file in table_to_files(files)])


def loop(job: Job) -> tuple[float, int]:
    """One process, one image after the other."""
    swapper = FaceSwapper(job.plan)
    start = time.perf_counter()
    faces = sum(len(swapper(file).faces) for file in job.todo)
    return time.perf_counter() - start, faces


def fused(job: Job) -> tuple[float, int]:
    """Two fused actors on Ray Data."""
    dataset = ray.data.from_arrow(blocks(job.todo, job.plan.settings.pools.analyse)).map_batches(
        Fused, fn_constructor_args=(job.plan,), batch_size=8, batch_format="pyarrow", num_cpus=1,
        compute=ActorPoolStrategy(size=2),
    )  # fmt: skip
    return watched(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))


def pools(job: Job) -> tuple[float, int]:
    """The product's own three pools."""
    return watched(in_pools(job.plan, job.todo))


def watched(tables: object) -> tuple[float, int]:
    """Seconds and faces from the first to the last batch: workers are up when the first comes."""
    first, faces = None, 0
    for table in tables:  # type: ignore[attr-defined]
        if first is None:
            first = time.perf_counter()
            continue
        faces += sum(table.column("faces").to_pylist())
    return time.perf_counter() - (first or 0.0), faces


def main() -> int:
    """Run each engine over the same inputs into an output of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--checkpoint", "--models", "--photos"):
        parser.add_argument(name, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    engines: dict[str, tuple[Callable[[Job], tuple[float, int]], list[str]]] = {
        "loop": (loop, []),
        "fused x 2": (fused, []),
        "pools 1+1+1": (pools, []),
        "pools 1+2+1": (pools, ["pools.swap.workers=2"]),
    }
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        photos = sorted(Path(arguments.photos).rglob("*.jpg"))[: arguments.count]
        for index, photo in enumerate(photos):
            target = Path(folder) / "in" / f"{index:05d}.jpg"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(photo.read_bytes())
        for number, (name, (engine, own)) in enumerate(engines.items()):
            words = [f"inputs={folder}/in", f"output={folder}/out{number}", f"source={photos[0]}"]
            words += [f"checkpoint={arguments.checkpoint}", f"models={arguments.models}", *arguments.settings, *own]
            job = plan_job(load_settings(SwapConfig, None, words))
            if name != "loop":
                start_ray(job.plan.settings.ray, pools_needs(job.plan.settings.pools))
            seconds, faces = engine(job)
            rows.append({"engine": name, "seconds": seconds, "faces/s": faces / seconds})
            rows[-1]["ratio"] = float(rows[-1]["faces/s"]) / float(rows[0]["faces/s"])  # type: ignore[arg-type]
            ray.shutdown()
    show(f"{len(photos)} photographs, {' '.join(arguments.settings) or 'default settings'}", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
