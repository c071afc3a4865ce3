"""Stores of every kind for tests, and a server that never answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.config import StorageConfig
from pipeline.media.store import Store
from tests.object_store import ObjectStore

KINDS = ("folder", "s3", "fsspec")

SPECIAL = ("a b.jpg", "a+b.jpg", "100%.jpg", "50%25.jpg", "é/ü ñ.jpg", "日本/顔.jpg", "a&b=c?d#e.jpg", "it's.jpg")
"""Names that an address could spoil."""


def set_environment(monkeypatch: pytest.MonkeyPatch, store: ObjectStore, endpoint: str | None = None) -> None:
    """Let addresses `s3://` mean the store of the tests, or a proxy in front of it."""
    for name, value in store.environment(endpoint).items():
        monkeypatch.setenv(name, value)


def names(store: Store, under: str = "") -> list[str]:
    return [file.name for file in store.list(under)]


def quick(**settings: float) -> StorageConfig:
    return StorageConfig.model_validate({"attempts": 2, "request_timeout_s": 1, "connect_timeout_s": 1, **settings})


@contextmanager
def silent_server(said: bytes = b"") -> Iterator[str]:
    """The endpoint of a server that accepts, says the same to everybody and then nothing more."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return
            if said:
                time.sleep(0.2)
                held[-1].sendall(said)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in held:
            connection.close()
