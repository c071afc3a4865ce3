"""This machine: Python, packages, GPUs, memory, disk."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import onnxruntime
import torch
from packaging.requirements import Requirement

from pipeline.config import RayConfig
from pipeline.runners.checkup.check import Check
from pipeline.runners.cluster import Needs

_GB = 1024**3
_DISTRIBUTION = "simswap-ray"
_WORKER_BYTES = 1 * _GB  # what a worker takes, measured: 0.6 to 1.2 GB with torch and both networks
_FILES = 8192
_SHARED_MEMORY = "/dev/shm"  # noqa: S108


def check_machine(
    ray: RayConfig, needs: Mapping[str, Needs], folders: Mapping[str, str], *, embedded: bool
) -> Iterator[Check]:
    """Look at this machine.

    Args:
        ray: settings of the Ray that the job would use.
        needs: what its pools reserve.
        folders: folders that are written to, by the setting that names them.
        embedded: whether the job would run here, on a Ray of its own.
    """
    yield _python()
    yield from _packages()
    embedded = embedded and ray.address is None
    yield from _gpus(sum(need.workers * need.gpus for need in needs.values()) if embedded else 0)
    if embedded:
        yield _cpus(ray, needs)
        yield _memory(sum(need.workers for need in needs.values()))
        yield _shared_memory(ray.object_store_bytes)
    yield _open_files()
    for name, folder in {**folders, "temporary files": tempfile.gettempdir()}.items():
        yield _disk(name, folder)


def _python() -> Check:
    return Check("python", "ok", f"{sys.version.split()[0]}, {sys.executable}")


def _packages() -> Iterator[Check]:
    """The versions that this project asks for, where they are not there."""
    try:
        wanted = [Requirement(line) for line in requires(_DISTRIBUTION) or ()]
    except PackageNotFoundError:
        yield Check("packages", "fault", f"{_DISTRIBUTION} is not installed", "Install it: pip install --editable .")
        return
    needed = [w for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})]
    wrong = 0
    for one in needed:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or not one.specifier.contains(found, prereleases=True):
            wrong += 1
            yield Check("packages", "fault", f"{one.name} is {found}", f"pip install '{one.name}{one.specifier}'")
    if not wrong:
        yield Check("packages", "ok", f"{len(needed)} as {_DISTRIBUTION} {version(_DISTRIBUTION)} asks for them")


def _gpus(asked: float) -> Iterator[Check]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked > count:
        built = "" if torch.version.cuda else ", and this torch was built without CUDA"
        mend = "Lower pools.*.gpus, or install torch with CUDA and the driver"
        yield Check("gpu", "fault", f"the job reserves {asked:g} GPUs, there are {count}{built}", mend)
    elif not count:
        yield Check("gpu", "ok", "none here, and the job reserves none")
    for number in range(count):
        facts = torch.cuda.get_device_properties(number)
        yield Check("gpu", "ok", f"{number}: {facts.name}, {facts.total_memory / _GB:.0f} GB")
    if count and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        mend = "Replace onnxruntime by onnxruntime-gpu where finding faces holds the job up"
        yield Check("onnxruntime", "warning", "finds faces on the CPU, though there is a GPU", mend)


def _cpus(ray: RayConfig, needs: Mapping[str, Needs]) -> Check:
    have = ray.num_cpus or os.cpu_count() or 1
    asked = sum(need.workers * need.cpus for need in needs.values())
    says = f"the job reserves {asked:g} CPUs, there are {have}"
    if asked > have:
        return Check("cpus", "fault", says, f"Lower {' or '.join(f'{name}.cpus' for name in needs)}, or the workers")
    return Check("cpus", "ok", says)


def _memory(workers: int) -> Check:
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    need = (workers + 1) * _WORKER_BYTES
    says = f"{have / _GB:.0f} GB, {workers} workers and the job itself take about {need / _GB:.0f} GB"
    if need > have:
        return Check("memory", "warning", says, "Use fewer workers, or a machine with more")
    return Check("memory", "ok", says)


def _shared_memory(object_store_bytes: int) -> Check:
    if not Path(_SHARED_MEMORY).is_dir():
        return Check("shared memory", "skipped", f"no {_SHARED_MEMORY} on this system")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    says = f"{free / _GB:.1f} GB free in {_SHARED_MEMORY}, ray.object_store_bytes is {object_store_bytes / _GB:.1f} GB"
    if free < object_store_bytes:
        mend = "Lower ray.object_store_bytes, or give the container more (docker run --shm-size)"
        return Check("shared memory", "warning", f"{says}: Ray would use the disk instead, which is slow", mend)
    return Check("shared memory", "ok", says)


def _open_files() -> Check:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < _FILES:
        return Check("open files", "warning", f"at most {limit} at a time, Ray wants more", "ulimit -n 65536")
    return Check("open files", "ok", "as many as are needed" if limit < 0 else f"up to {limit} at a time")


def _disk(name: str, folder: str) -> Check:
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    free = shutil.disk_usage(there).free
    says = f"{free / _GB:.1f} GB free in {there} ({name})"
    if free < _GB:
        return Check("disk", "fault", says, "Make room, or choose another folder")
    return Check("disk", "warning" if free < 10 * _GB else "ok", says, "Make room" if free < 10 * _GB else "")
