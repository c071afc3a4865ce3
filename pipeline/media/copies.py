"""Models and sources from buckets: copied to this machine once, since the libraries that load them want paths."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.media.addresses import is_local, split_address
from pipeline.media.store import Store, StoredFile, store_at

CACHE = "SIMSWAP_CACHE"
"""Environment variable with the folder of the copies; `~/.cache/simswap-ray` without it."""


@lru_cache(maxsize=256)
def local_copy(address: str) -> str:
    """A path on this machine with the file, or the whole folder, that lies at an address.

    A path is returned as it is. What lies in a bucket is copied, once on each machine as long as it does not change
    there (names, sizes and times), and looked at once in each process. The copy bears the name that the address ends
    with.

    Raises:
        ConfigError: nothing is there.
        StoreError: the store does not answer, or refuses.
    """
    if is_local(address):
        return address.removeprefix("file://")
    folder, name = split_address(address.rstrip("/"))
    store = store_at(folder)
    file = store.stat(name) if name else None
    files = [file] if file is not None else list(store.list(name))
    if not files:
        raise ConfigError(address, "nothing is there", "Check the address")
    facts = "\n".join(f"{f.name}\0{f.size_bytes}\0{f.mtime_ns}" for f in files)
    kept = _cache() / hashlib.sha256(f"{address}\n{facts}".encode()).hexdigest()[:32]
    if not kept.is_dir():
        _fetch(store, files, name, kept)
    return str(kept / Path(name).name)


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or "~/.cache/simswap-ray").expanduser()


def _fetch(store: Store, files: Sequence[StoredFile], name: str, kept: Path) -> None:
    """Copy files so that `kept` is there whole or not at all, whoever else does the same."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".partial-") as partial:
            whole = Path(partial) / "whole"
            for file in files:
                path = whole / Path(name).name / file.name.removeprefix(name).lstrip("/")
                if ".." in path.parts:  # names of objects are data
                    raise ConfigError(f"{store.address}/{file.name}", "its name leads out of the folder", "Rename it")
                path.parent.mkdir(parents=True, exist_ok=True)
                with store.fetched(file.name) as fetched:
                    shutil.move(fetched, path)
                os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
            with suppress(OSError):  # another process was quicker, with the same
                whole.rename(kept)
            if not kept.is_dir():
                raise OSError(f"no folder {kept}")
    except OSError as error:
        mend = f"Set {CACHE} to a folder with space"
        raise ConfigError(
            str(kept.parent), f"no copy of {store.address}/{name} could be made ({error})", mend
        ) from error
