"""Where the real weights, photographs and S3 server are, and what is skipped without them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from tests.object_store import ObjectStore, keeps_attributes, swift_python

os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))

hypothesis.settings.register_profile("shared machines", deadline=None)
hypothesis.settings.load_profile("shared machines")

SHARED = Path(__file__).resolve().parents[2] / "shared"

_BEGUN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "begin no test later than so many seconds after the first; the others are skipped, and say so"
    parser.addoption("--begin-within", type=float, default=float("inf"), metavar="SECONDS", help=text)


def pytest_runtest_setup(item: pytest.Item) -> None:
    within = item.config.getoption("--begin-within")
    if time.monotonic() - _BEGUN > within:
        pytest.skip(f"{within:g} s are over (--begin-within)")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell at once what has failed: a run that is cut off tells nothing at its end."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when}) after {report.duration:.0f} s:\n{report.longreprtext}", flush=True)


@pytest.fixture(scope="session", autouse=True)
def _a_position_for_each_reader() -> Iterator[None]:
    """fsspec's files in memory have one position for all who read one at the same time, unlike any real store."""
    opened = MemoryFileSystem._open

    def open_(self: MemoryFileSystem, path: str, mode: str = "rb", **rest: Any) -> Any:
        file = opened(self, path, mode, **rest)
        return MemoryFile(data=file.getvalue()) if mode == "rb" else file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFileSystem, "_open", open_)
        yield


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with `models/` and `photos/`; the test is skipped where it is missing."""
    folder = Path(os.environ.get("SIMSWAP_TEST_ASSETS", SHARED / "assets"))
    if not (folder / "models").is_dir():
        pytest.skip(f"real weights and photographs are not at {folder} (SIMSWAP_TEST_ASSETS points elsewhere)")
    return folder


@pytest.fixture(scope="session")
def pack(assets: Path) -> str:
    """A real insightface pack: detector and 512-d recogniser."""
    return str(assets / "models" / "buffalo_sc_dequant")


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder with the keys and reference outputs of the published generator."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip(f"reference outputs are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server with one bucket for the whole session: keep to a prefix of your own in it."""
    python = swift_python()
    if python is None:
        pytest.skip("OpenStack Swift is not installed: `make test` does it (SIMSWAP_TEST_SWIFT points elsewhere)")
    folders = (tmp_path_factory.mktemp("object-store"), python.parents[1])
    with (
        TemporaryDirectory(dir=next(filter(keeps_attributes, folders), None)) as folder,
        ObjectStore(Path(folder)) as store,
    ):
        yield store
