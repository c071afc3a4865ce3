"""How long a submitted job takes to begin: from `simswap submit` on a warm cluster to the first item, and its result.

    python -m benchmarks.start [--items 1000] [--times 3] [--nodes 1]

Starts a cluster on this machine (token on), makes pictures of procedural people, and submits their swap with the demo's
pack and generator: once to warm cluster and page cache up, then as often as asked. An item has begun when its file has
been read for the first time: the file system keeps the time (not where it is mounted with `noatime`). Prints of each
job the seconds until the command returned (`--detach`), until the first item began, and until the first result was
there; then the job is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.portrait_pack import pack_folder, shipped_generator
from pipeline.synthetic.people import Appearance
from tests.factories import encode_png, portrait
from tests.nodes import nodes
from tests.unit.runners.test_tracking import free_port

_SIDE = 320
_LONGEST_S = 600.0


def make_pictures(folder: Path, count: int) -> None:
    """Pictures of one face each: eight, over and over."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    some = [encode_png(portrait(Appearance.sample(random), random, side=_SIDE).frame) for _ in range(8)]
    for number in range(count):
        (folder / f"{number:05d}.png").write_bytes(some[number % 8])


def unread(folder: Path) -> None:
    """Make all its files look as if they had been written after they were last read."""
    for path in folder.iterdir():
        os.utime(path, (1.0, 2.0))


def began(folder: Path) -> float | None:
    """When the first of its files was read."""
    read = [stat.st_atime for stat in map(os.stat, folder.iterdir()) if stat.st_atime > 2.0]
    return min(read) if read else None


def first_result(folder: Path) -> float | None:
    """When the first picture became visible."""
    written = [path.stat().st_mtime for path in folder.glob("*.png")]
    return min(written) if written else None


def wait_for(what: Callable[[], float | None]) -> float:
    """Until there is an answer."""
    until = time.monotonic() + _LONGEST_S
    while (found := what()) is None:
        if time.monotonic() > until:
            raise TimeoutError(f"nothing after {_LONGEST_S:g} s")
        time.sleep(0.1)
    return found


def measure(root: Path, address: str, token: Path, name: str) -> dict[str, float]:
    """Submit one job, and stop it after its first result: seconds from the command to each."""
    simswap = [sys.executable, "-m", "jobs"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "RAY_AUTH_TOKEN_PATH": str(token)}
    output = root / name
    words = ["submit", "swap", str(root / "swap.yaml"), f"output={output}", f"checkpoint={shipped_generator()}"]
    words += [f"models={pack_folder('portraits')}", f"tracking.uri=sqlite:///{root / 'mlflow.db'}"]
    words += ["--address", address, "--id", name, "--python", sys.executable, "--detach"]
    unread(root / "in")
    start = time.time()
    subprocess.run([*simswap, *words], cwd=root, env=environment, check=True, stdout=subprocess.PIPE)
    seconds = {"submitted": time.time() - start}
    seconds["first_item"] = wait_for(lambda: began(root / "in")) - start
    seconds["first_result"] = wait_for(lambda: first_result(output)) - start
    subprocess.run(
        [*simswap, "jobs", "stop", name, "--address", address], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return {name: round(value, 1) for name, value in seconds.items()}


def main() -> int:
    """Measure; a line each, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pictures(root / "in", asked.items)
        (root / "source").mkdir()
        random = np.random.default_rng(6)
        face = portrait(Appearance.sample(random), random, side=_SIDE)
        (root / "source" / "somebody.png").write_bytes(encode_png(face.frame))
        (root / "swap.yaml").write_text("inputs: in\nsource: source\npolicy: {low_confidence: copy, no_face: copy}\n")
        token = root / "token"
        token.write_text(secrets.token_hex(24))
        token.chmod(0o600)
        node = {"num_cpus": os.cpu_count(), "object_store_memory": 300_000_000}
        some = [node | {"dashboard_agent_listen_port": free_port()}, *[node] * (asked.nodes - 1)]
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        with nodes(some, root, free_port(), secret) as cluster:
            rows = [measure(root, cluster.dashboard, token, f"job-{n}") for n in range(asked.times + 1)]
    for number, row in enumerate(rows):
        print(json.dumps({"job": number, "warm": number > 0, **row}), flush=True)
    print(json.dumps({"median": {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
