"""A small swap job as a command of its own, to be killed and run again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.faces.table import write_faces
from pipeline.types import Faces
from tests.factories import ENCODER, encode_png, scene, scene_faces, small_job
from tests.faults.commands import Command, fork, spawn
from tests.shards import make_tar, member

ROOT = Path(__file__).resolve().parents[2]
BROKEN = b"no picture"

Sample = tuple[str, bytes, Faces | None]
"""Key, bytes of the picture, its faces; None for what is no picture."""


@dataclass
class SmallJob:
    """A swap of small pictures in a folder of its own.

    Attributes:
        root: folder that holds all of it.
        environment: further variables of the commands.
        words: further settings of the swap.
        forked: whether commands are forked off a process that has imported everything: ten seconds less for each.
    """

    root: Path
    environment: dict[str, str]
    words: tuple[str, ...] = ()
    forked: bool = True

    @classmethod
    def make(cls, root: Path, images: int, **changes: Any) -> SmallJob:
        """Draw the pictures and write the settings."""
        # One picture a batch: what a fault hits is then one picture too.
        pools = {name: {"items": 2, "cpus": 0.3} for name in ("analyse", "swap", "finish")}
        pools["swap"]["workers"] = 1
        defaults = {"pools": pools, "ray": {"num_cpus": 1}, "tracking": {"enabled": False, "contact_sheet": 0}}
        root.mkdir(parents=True, exist_ok=True)
        settings = small_job(root, images, **(defaults | changes))
        (root / "swap.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
        return cls(root, {})

    @classmethod
    def make_shards(cls, root: Path, shards: int, samples: int, broken: bool = True, **changes: Any) -> SmallJob:
        """The same with shards for inputs: tars with their side files, and every third one a Parquet file.

        Args:
            root: folder that holds all of it.
            shards: how many.
            samples: pictures in each.
            broken: whether the second sample of each is no picture.
            changes: of the settings.
        """
        job = cls.make(root, 0, **changes)
        (root / "in").mkdir()
        for number in range(shards):
            some = _samples(number * samples, samples, broken)
            name = f"{number:05d}.parquet" if number % 3 == 2 else f"{number:05d}.tar"
            (_write_parquet if number % 3 == 2 else _write_tar)(root / "in" / name, some)
            rows = [
                (f"{name}/{key}.png", hashlib.sha256(data).hexdigest(), faces) for key, data, faces in some if faces
            ]
            write_faces(str(root / "table"), rows, ENCODER.digest)
        return job

    @property
    def inputs(self) -> str:
        """Address of the inputs."""
        return self._address("inputs", "in")

    @property
    def output(self) -> str:
        """Address of the output."""
        return self._address("output", "out")

    def _address(self, setting: str, folder: str) -> str:
        given = [word.partition("=")[2] for word in self.words if word.startswith(f"{setting}=")]
        return given[-1] if given else str(self.root / folder)

    def start(self, *words: str, command: str = "swap", **environment: str) -> Command:
        """Begin a command, in a process group of its own."""
        files = [str(self.root / "swap.yaml"), *self.words] if command == "swap" else [self.output]
        variables = os.environ | {"PYTHONPATH": str(ROOT)} | self.environment | environment
        variables["SIMSWAP_FAILPOINTS_JOB"] = str(self.root / "job.pid")
        begin = fork if self.forked else spawn
        process = begin([command, *files, *words], str(self.root), variables)
        if command == "swap":
            (self.root / "job.pid").write_text(str(process.pid))
        return process

    def run(self, *words: str, command: str = "swap", **environment: str) -> tuple[int, dict[str, Any]]:
        """Run a command to its end: exit code and result; a killed one has none."""
        return self.end(self.start(*words, command=command, **environment))

    def end(self, process: Command, timeout_s: float = 500.0) -> tuple[int, dict[str, Any]]:
        """Wait for a command, and until nothing works for it any more: exit code and result; a killed one has none."""
        stdout, stderr = process.communicate(timeout=timeout_s)
        self.wait_until_gone()
        if process.returncode == -signal.SIGKILL:
            return process.returncode, {}
        assert stdout.count("\n") == 1, stdout + stderr
        return int(process.returncode or 0), json.loads(stdout) | {"stderr": stderr}

    def kill(self, process: Command) -> None:
        """SIGKILL to the job and all that works for it, at once."""
        for pid in [process.pid, *self.processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end(process)

    def processes(self) -> list[int]:
        """Whatever works in this job's folder: the command, its Ray, its workers."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and (entry / "cwd").readlink() == self.root:
                    found.append(int(entry.name))
        return found

    def workers(self) -> list[int]:
        """Those that Ray has started to work for it; not its agents, with which a node goes."""
        found = []
        for pid in self.processes():
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if title.startswith(b"ray::") and b"Agent" not in title:
                    found.append(pid)
        return found

    def wait_until_gone(self, timeout_s: float = 60.0) -> None:
        """Wait for the end of all that works for it: a Ray whose driver has died notices in some seconds."""
        deadline = time.monotonic() + timeout_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not self.processes(), "processes that outlive their job"

    def results(self) -> int:
        """How many parts and results there are in an output on this machine, while the job runs."""
        out = self.root / "out"
        visible = [path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != "_simswap"]
        return len(visible) + len(list((out / "_simswap" / "shards").glob("*/part-*.parquet")))

    def wait_for_results(self, process: Command, count: int) -> None:
        """Wait until some have been made; the job must not end before."""
        while self.results() < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)


def failing(*points: str) -> Mapping[str, str]:
    """Environment of a command in which these fail points are set."""
    return {"SIMSWAP_FAILPOINTS": ",".join(points)}


def _samples(first: int, count: int, broken: bool) -> list[Sample]:
    samples = list[Sample]()
    for number in range(first, first + count):
        made = scene(1 + number % 2, seed=number)
        is_broken = broken and number == first + 1
        data, faces = (BROKEN, None) if is_broken else (encode_png(made.frame), scene_faces(made))
        samples.append((f"{number:09d}", data, faces))
    return samples


def _write_tar(path: Path, samples: Sequence[Sample]) -> None:
    members = []
    for key, data, _ in samples:
        members += [member(f"{key}.png", data), member(f"{key}.txt", b"a caption"), member(f"{key}.json", b"{}")]
    path.write_bytes(make_tar(members, "pax" if len(samples) % 2 else "ustar"))
    keys, stem = [key for key, _, _ in samples], str(path).removesuffix(".tar")
    nothing, some = [None] * len(keys), [1] * len(keys)
    columns = {"key": keys, "status": ["success"] * len(keys), "url": [f"https://{key}" for key in keys]}
    messages = pa.array(nothing, pa.string())
    pq.write_table(pa.table(columns | {"error_message": messages, "width": some, "height": some}), f"{stem}.parquet")
    counts = {"count": len(keys), "successes": len(keys), "status_dict": {"success": len(keys)}}
    Path(f"{stem}_stats.json").write_text(json.dumps(counts))


def _write_parquet(path: Path, samples: Sequence[Sample]) -> None:
    keys, data = [key for key, _, _ in samples], [data for _, data, _ in samples]
    columns = {"key": keys, "image": pa.array(data, pa.binary()), "label": list(range(len(keys)))}
    pq.write_table(pa.table(columns), path, row_group_size=max(len(keys) // 2, 1))
