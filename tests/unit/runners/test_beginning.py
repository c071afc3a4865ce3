"""What a job does not do before its first input."""

from __future__ import annotations

import subprocess
import sys

LISTED = """
import sys
import pyarrow as pa
import ray
import pipeline.runners.engine
from pipeline.runners.cluster import dataset_of
print("insightface" in sys.modules)
ray.init("local", num_cpus=0, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
some = dataset_of([pa.table({"n": [1, 2]}), pa.table({"n": [3]})])
print(some.num_blocks(), some.count(), some.schema().names)
"""


def test_inputs_are_listed_without_a_worker_and_stages_load_no_insightface() -> None:
    """Ray has no CPU here: a task would wait for ever."""
    done = subprocess.run([sys.executable, "-c", LISTED], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["False", "2 3 ['n']"]
