"""Addresses of files: a path on this machine, or `scheme://bucket/name`."""

from __future__ import annotations

from pathlib import Path


def is_local(address: str) -> bool:
    """Whether an address is a path on this machine."""
    return "://" not in address or address.startswith("file://")


def absolute(address: str) -> str:
    """The address as any process of any working folder understands it."""
    if is_local(address):
        return str(Path(address.removeprefix("file://")).expanduser().absolute())
    scheme, _, path = address.partition("://")
    return f"{scheme}://{path.rstrip('/')}"


def split_address(address: str) -> tuple[str, str]:
    """A file's folder on this machine, or its bucket, and its name there."""
    if is_local(address):
        folder, _, name = absolute(address).rpartition("/")
        return folder or "/", name
    scheme, _, path = address.partition("://")
    bucket, _, name = path.partition("/")
    return f"{scheme}://{bucket}", name
