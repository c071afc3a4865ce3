"""What `tests/object_store.py` runs with the Python that has Swift: four servers and their parent.

That Python has nothing else, so nothing of this project is imported.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn
from weakref import WeakValueDictionary

_PR_SET_PDEATHSIG = 1
_MODULES = {
    "account": "swift.account.server",
    "container": "swift.container.server",
    "object": "swift.obj.server",
    "proxy": "swift.proxy.server",
}
_PRELOADED = ("swift.common.middleware.s3api.s3api", "swift.common.middleware.slo", "swift.common.middleware.tempauth")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class MemoryCache:
    """What Swift asks of memcached, in the one process of the proxy server: half of the requests inside go away."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, Any]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        """The value, or None where there is none or it is too old."""
        ends, value = self._entries.get(key, (0.0, None))
        return value if ends > monotonic() else None

    def set(self, key: str, value: Any, *unused: Any, time: float = 0, **options: Any) -> None:
        """Keep a value for so many seconds."""
        self._entries[key] = (monotonic() + (time or 86400), value)

    def delete(self, key: str, server_key: str | None = None) -> None:
        """Forget a value."""
        self._entries.pop(key, None)

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Add to a number, from nought."""
        total = max(0, (self.get(key) or 0) + delta)
        self.set(key, total, time=time)
        return total


def cache_filter(global_config: dict[str, str], **local: str) -> Callable[[Application], Application]:
    """The middleware that stands where Swift's `cache` does, named in the configuration of the proxy server."""
    cache = MemoryCache()

    def wrap(application: Application) -> Application:
        def call(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environment["swift.cache"] = cache
            return application(environment, start_response)

        return call

    return wrap


def one_writer_filter(global_config: dict[str, str], **local: str) -> Callable[[Application], Application]:
    """The middleware that lets one request at a time write a key, parts of uploads excepted.

    Swift looks whether the key exists and then writes it, so that without this several of those that create a key
    at the same time (`If-None-Match: *`) succeed; S3 promises that one does.
    """
    semaphore = importlib.import_module("eventlet.semaphore").Semaphore
    locks: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def wrap(application: Application) -> Application:
        def alone(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            path = environment["PATH_INFO"]
            lock = locks.get(path) or locks.setdefault(path, semaphore())
            with lock:
                reply = application(environment, start_response)
                try:
                    yield from reply
                finally:
                    getattr(reply, "close", lambda: None)()

        def call(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            writes = environment["REQUEST_METHOD"] in ("PUT", "POST", "DELETE")
            is_part = "partNumber=" in environment.get("QUERY_STRING", "")
            return (alone if writes and not is_part else application)(environment, start_response)

        return call

    return wrap


def make_rings(folder: Path, ports: dict[str, int]) -> None:
    """Write one ring of one replica on the device `d1` for each kind of server that stores."""
    ring = importlib.import_module("swift.common.ring")
    for kind, port in ports.items():
        builder = ring.RingBuilder(4, 1, 0)
        builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "d1", "weight": 1.0})
        builder.rebalance(seed="1")
        builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


def serve(folder: Path, kind: str) -> int:
    """Become two: the child is a server until a signal comes or the parent is gone.

    Returns:
        The child, to the parent.
    """
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_the_parent()
    if os.getppid() != parent:
        os._exit(1)
    log = os.open(folder / kind / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [f"swift-{kind}-server", str(folder / kind / "server.conf"), "--verbose"]
    sys.exit(importlib.import_module(_MODULES[kind]).main())


def main() -> None:
    """Make rings, start the servers, write down their ids, and end all of them as soon as one ends or a signal comes.

    Command line: the folder, and a port for each kind in the order of `_MODULES`.
    """
    _end_with_the_parent()
    folder, ports = Path(sys.argv[1]), dict(zip(_MODULES, map(int, sys.argv[2:]), strict=True))
    for module in (*_MODULES.values(), *_PRELOADED):
        importlib.import_module(module)  # once, not in each of four
    wsgi: Any = importlib.import_module("swift.common.wsgi")
    wsgi.drop_privileges = lambda user: None  # there are none to drop, and not every user has a name
    make_rings(folder, {kind: port for kind, port in ports.items() if kind != "proxy"})
    children: dict[str, int] = {}
    signal.signal(signal.SIGTERM, lambda *_: _end(children))
    for kind in ports:
        children[kind] = serve(folder, kind)
    (folder / "pids").write_text("".join(f"{kind} {pid}\n" for kind, pid in children.items()))
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    _end(children)


def _end(children: dict[str, int]) -> NoReturn:
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)  # a child that ended is still there to be killed: nobody has waited for it
    for pid in children.values():
        os.waitpid(pid, 0)
    os._exit(0)


def _end_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
