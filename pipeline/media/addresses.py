"""Files at an address: a path on this machine, or `s3://…`, `gs://…` through pyarrow."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from pipeline.errors import ConfigError, OutputError
from pipeline.media.storage import write_atomically


def is_local(address: str) -> bool:
    """Whether an address is a path on this machine."""
    return "://" not in address


def absolute(address: str) -> str:
    """The address as any process of any working folder understands it."""
    return str(Path(address).expanduser().absolute()) if is_local(address) else address.rstrip("/")


def filesystem_of(address: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path on it.

    Raises:
        ConfigError: an address that pyarrow does not know.
    """
    if is_local(address):
        return fs.LocalFileSystem(), absolute(address)
    try:
        files, path = fs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise ConfigError(address, f"not an address that can be read ({error})", "Give a path or s3://…") from error
    return files, str(path).rstrip("/")


def read_file(address: str) -> bytes | None:
    """The bytes at an address; None where there is nothing.

    Raises:
        OSError: it cannot be read.
    """
    files, path = filesystem_of(address)
    try:
        with files.open_input_file(path) as file:
            return bytes(file.read())
    except FileNotFoundError:
        return None


def write_file(address: str, data: bytes) -> None:
    """Write a file so that there is nothing, the old one, or the whole new one.

    Raises:
        OutputError: it cannot be written.
    """
    if is_local(address):
        write_atomically(Path(absolute(address)), data)
        return
    files, path = filesystem_of(address)
    try:
        with files.open_output_stream(path) as file:  # an object store shows an object when it is complete
            file.write(data)
    except OSError as error:
        raise OutputError(address, f"cannot be written ({error})", "Check the address and your rights") from error


def is_empty(folder: str) -> bool:
    """Whether nothing is below an address; a folder that is not there is empty."""
    files, path = filesystem_of(folder)
    return not files.get_file_info(fs.FileSelector(path, allow_not_found=True))
