"""What reading and writing an S3 store costs beside the plain client, in one run.

    python -m benchmarks.storage [--small 2000] [--large 20] [--rounds 3]

The store is the tests' own: four Swift processes on this machine. Every round reads the same objects each way, in turn;
a time is the median of the rounds, a ratio is to the plain client (pyarrow, 16 threads).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.config import ImagesConfig, StorageConfig
from pipeline.media.inputs import InputFile, Inputs, list_inputs
from pipeline.media.store import Store
from tests.object_store import ObjectStore, keeps_attributes, swift_python

SMALL_BYTES, LARGE_BYTES = 100_000, 20_000_000
BATCH = 8
Way = Callable[[], None]


def seconds(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Median time of each way over alternating rounds, after one call that opens the connections."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways)
        for name in names if number % 2 == 0 else reversed(names):
            began = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def job(inputs: Inputs, files: Sequence[InputFile], batch: int) -> None:
    """Read as a stage does: announce a batch, read it file by file."""
    for start in range(0, len(files), batch):
        some = files[start : start + batch]
        inputs.ahead(some)
        for file in some:
            inputs.read(file)


def looking_ahead(inputs: Inputs, files: Sequence[InputFile]) -> None:
    """The same where the batches after this one are announced as well."""
    for start in range(0, len(files), BATCH):
        inputs.ahead(files[start : start + 4 * BATCH])
        for file in files[start : start + BATCH]:
            inputs.read(file)


def reading(store: ObjectStore, address: str, rounds: int) -> dict[str, float]:
    """All objects below an address, each way."""
    files = list(list_inputs(address))
    root = address.removeprefix("s3://")
    paths = [f"{root}/{file.item}" for file in files]
    plain, fsspec = store.filesystem(), store.fsspec_filesystem()
    inputs = Inputs(address, ImagesConfig(), StorageConfig())

    def threads(read: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(read, paths):
                pass

    ways: dict[str, Way] = {
        "pyarrow, 16 threads": lambda: threads(lambda path: plain.open_input_file(path).read()),
        f"Inputs, batches of {BATCH}": lambda: job(inputs, files, BATCH),
        "Inputs, batches of 32": lambda: job(inputs, files, 32),
        f"Inputs, batches of {BATCH}, three ahead": lambda: looking_ahead(inputs, files),
        "s3fs, 16 threads": lambda: threads(fsspec.cat_file),
    }
    return seconds(ways, rounds)


def writing(store: ObjectStore, count: int, rounds: int) -> dict[str, float]:
    """Small objects from 16 threads, each way."""
    plain, data = store.filesystem(), os.urandom(SMALL_BYTES)
    from pyarrow.fs import S3FileSystem

    delayed = S3FileSystem(
        endpoint_override=store.endpoint, access_key=store.access_key, secret_key=store.secret_key,
        region=store.region, allow_delayed_open=True,
    )  # fmt: skip
    ours = Store(f"s3://{store.bucket}/written")

    def stream(files: S3FileSystem, name: str) -> None:
        with files.open_output_stream(f"{store.bucket}/written/{name}") as file:
            file.write(data)

    def threads(write: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(write, map(str, range(count))):
                pass

    return seconds(
        {
            "pyarrow, delayed open": lambda: threads(lambda name: stream(delayed, name)),
            "Store.write": lambda: threads(lambda name: ours.write(name, data)),
            "pyarrow, as it comes": lambda: threads(lambda name: stream(plain, name)),
        },
        rounds,
    )


def show(title: str, times: dict[str, float], num_bytes: int) -> None:
    """One table; the first row is what the others are compared with."""
    first = next(iter(times.values()))
    print(f"\n{title}\n| way | s | MB/s | ratio |\n|---|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {found:.2f} | {num_bytes / found / 1e6:.0f} | {found / first:.2f} |", flush=True)


def main() -> None:
    """Start the store, fill it, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=2000, help="objects of 100 kB")
    parser.add_argument("--large", type=int, default=20, help="objects of 20 MB")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    python = swift_python()
    if python is None:
        raise SystemExit("OpenStack Swift is not installed: `make test` does it (SIMSWAP_TEST_SWIFT points elsewhere)")
    folders = (Path(tempfile.gettempdir()), python.parents[1])
    with (
        tempfile.TemporaryDirectory(dir=next(filter(keeps_attributes, folders), None)) as folder,
        ObjectStore(Path(folder), python) as store,
    ):
        os.environ.update(store.environment())
        for kind, count, size in (("small", options.small, SMALL_BYTES), ("large", options.large, LARGE_BYTES)):
            address = f"s3://{store.bucket}/{kind}"
            Store(address).write("first", os.urandom(size))
            filled, data = Store(address), os.urandom(size)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda n, to=filled, it=data: to.write(f"{n:05}", it), range(count - 1)))
            show(f"Reading {count} x {size:,} bytes", reading(store, address, options.rounds), count * size)
        count = max(options.small // 4, 1)
        show(f"Writing {count} x {SMALL_BYTES:,} bytes", writing(store, count, options.rounds), count * SMALL_BYTES)


if __name__ == "__main__":
    main()
