"""An HTTP proxy in front of an object store that fails on purpose, and passes everything else on byte for byte.

It changes no header, so a signed request (`Host` and all) is still well signed, whatever framing its body has.
It lives in a thread of its own; other processes reach it at `endpoint`.

    with FaultProxy(store.endpoint) as proxy:
        proxy.fail_next(Fault.LOST_REPLY, method="PUT", path=r"/films/a\\.mp4")
        ...
        assert proxy.faults[Fault.LOST_REPLY] == 1
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_BLOCK_BYTES = 64 * 1024
_HEAD_BYTES = 256 * 1024
_DRAIN_SECONDS = 2.0
_ERRORS = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Fault(StrEnum):
    """What can go wrong with a request."""

    ERROR = "500 InternalError"
    """The store never sees the request; the client reads 500."""
    SLOW_DOWN = "503 SlowDown"
    """The store never sees the request; the client reads 503."""
    LATENCY = "latency"
    """The request waits before it goes on, and is then answered well."""
    CUT_BODY = "cut body"
    """The connection breaks in the middle of the body of the reply; of the head, where it has no body."""
    LOST_REPLY = "lost reply"
    """The store does what is asked; the connection breaks before the first byte of the reply."""


_MESSAGES = {
    Fault.ERROR: "We encountered an internal error. Please try again.",
    Fault.SLOW_DOWN: "Please reduce your request rate.",
}


@dataclass(frozen=True)
class Schedule:
    """Faults by chance that the seed fixes: the n-th time that a method and path come, the same happens in every run.

    So neither the order of the requests nor the number of workers changes what fails.

    Attributes:
        seed: of the chance.
        rates: the share of requests, 0..1, for each fault; together at most 1.
        path: what the path and query have to contain, a regular expression.
    """

    seed: int
    rates: Mapping[Fault, float]
    path: str = ""

    def fault(self, method: str, target: str, nth: int) -> Fault | None:
        """What happens to the n-th request of this method and path, from 0.

        Args:
            method: of the request.
            target: path and query; the query decides only whether `path` matches.
            nth: how many came before.
        """
        if not re.search(self.path, target):
            return None
        text = f"{self.seed} {method} {urlsplit(target).path} {nth}"
        chance = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        for fault, rate in self.rates.items():
            if chance < rate:
                return fault
            chance -= rate
        return None


@dataclass
class _Rule:
    fault: Fault
    left: int
    method: str | None
    path: str

    def matches(self, method: str, target: str) -> bool:
        return self.left > 0 and self.method in (None, method) and re.search(self.path, target) is not None


@dataclass(frozen=True)
class _Head:
    """The first line and headers of a request or reply; `raw` is every byte of it."""

    raw: bytes
    first: tuple[str, str, str]
    headers: Mapping[str, str] = field(repr=False)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close" or "HTTP/1.0" in self.first


class FaultProxy:
    """A proxy that fails as it is told, from `with` to the end of it.

    Attributes:
        endpoint: its address, `http://127.0.0.1:PORT`.
        requests: how many came, by method; faulty ones too.
        faults: how many were made, by kind.

    Args:
        upstream: address of the store, `http://HOST:PORT`.
        schedule: faults by chance; None is none.
        latency_seconds: how long `Fault.LATENCY` is.
    """

    def __init__(self, upstream: str, schedule: Schedule | None = None, latency_seconds: float = 0.5) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._latency_seconds = latency_seconds
        self._schedule = schedule
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._came: Counter[tuple[str, str]] = Counter()
        self._ready, self._connections = threading.Event(), set[asyncio.Task[None]]()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="fault-proxy", daemon=True)
        self.endpoint = ""
        self.requests: Counter[str] = Counter()
        self.faults: Counter[Fault] = Counter()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        if not self._ready.wait(60):
            raise TimeoutError(
                f"{self._upstream}: the proxy in front did not start in 60 s. Is the machine overloaded?"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Break every connection and stop."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def fail_next(self, fault: Fault, count: int = 1, *, method: str | None = None, path: str = "") -> None:
        """Let the next requests that match fail, before the schedule is asked; the oldest such wish comes first.

        Args:
            fault: how.
            count: how many requests.
            method: of the requests; None is any.
            path: what the path and query have to contain, a regular expression.
        """
        with self._lock:
            self._rules.append(_Rule(fault, count, method, path))

    def follow(self, schedule: Schedule | None) -> None:
        """Change the schedule; None is no more faults by chance."""
        with self._lock:
            self._schedule = schedule

    def calm(self) -> None:
        """Forget every wish for a fault, and the schedule."""
        with self._lock:
            self._rules.clear()
            self._schedule = None

    def _choose(self, method: str, target: str) -> Fault | None:
        with self._lock:
            self.requests[method] += 1
            key = (method, urlsplit(target).path)
            nth = self._came[key]
            self._came[key] += 1
            rule = next((rule for rule in self._rules if rule.matches(method, target)), None)
            if rule is not None:
                rule.left -= 1
                fault: Fault | None = rule.fault
            else:
                fault = self._schedule.fault(method, target, nth) if self._schedule else None
            if fault is not None:
                self.faults[fault] += 1
            return fault

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client's connection, request by request."""
        writer.transport.set_write_buffer_limits(0)  # so that what is drained has left
        try:
            while await self._exchange(reader, writer):
                pass
            writer.close()
            await writer.wait_closed()
        except _ERRORS:
            pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection can take another."""
        request = await _read_head(reader)
        method, target, _ = request.first
        fault = self._choose(method, target)
        if fault in (Fault.ERROR, Fault.SLOW_DOWN):
            return await _refuse(fault, request, reader, writer)
        if fault is Fault.LATENCY:
            await asyncio.sleep(self._latency_seconds)
        up_reader, up_writer = await asyncio.open_connection(*self._upstream, limit=_HEAD_BYTES)
        sending = asyncio.create_task(_send(request, reader, up_writer))
        try:
            head, leave = await _final_head(up_reader, writer)
            if "expect" in request.headers and not leave:
                sending.cancel()  # what comes next may be another request, or a body after all
            framed = await _reply(method, fault, head, up_reader, writer)
            await asyncio.wait({sending}, timeout=_DRAIN_SECONDS)  # a store may refuse a body that it has not read
            sent = sending.done() and not sending.cancelled() and sending.exception() is None
            return sent and framed and not request.closes
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            up_writer.transport.abort()


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    a, b, c = [*first.split(" ", 2), "", ""][:3]
    named = (line.partition(":") for line in lines)
    return _Head(raw, (a, b, c), {name.strip().lower(): value.strip() for name, _, value in named})


async def _body(reader: asyncio.StreamReader, head: _Head, *, until_closed: bool) -> AsyncIterator[bytes]:
    """The bytes of a body as they came, the framing of its chunks included."""
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        size = 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + (await reader.readexactly(size + 2) if size else await _trailers(reader))
    elif "content-length" in head.headers:
        left = int(head.headers["content-length"])
        while left:
            block = await reader.read(min(left, _BLOCK_BYTES))
            if not block:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(block)
            yield block
    elif until_closed:
        while block := await reader.read(_BLOCK_BYTES):
            yield block


async def _trailers(reader: asyncio.StreamReader) -> bytes:
    lines = [await reader.readuntil(b"\r\n")]
    while lines[-1] != b"\r\n":
        lines.append(await reader.readuntil(b"\r\n"))
    return b"".join(lines)


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _send(request: _Head, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
    try:
        await _write(upstream, request.raw)
        async for block in _body(reader, request, until_closed=False):
            await _write(upstream, block)
    except ConnectionError:
        pass  # the store has closed: its reply says why
    except asyncio.IncompleteReadError:
        upstream.transport.abort()  # the client has gone: nobody waits for a reply


async def _refuse(fault: Fault, request: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer in the store's place, after the body; a client that waits for leave to send it is turned away."""
    waits = "expect" in request.headers
    if not waits:
        async for _ in _body(reader, request, until_closed=False):
            pass
    code = fault.value.split()[1]
    said = f"<Error><Code>{code}</Code><Message>{_MESSAGES[fault]}</Message><RequestId>fault-proxy</RequestId></Error>"
    body = b"" if request.first[0] == "HEAD" else f'<?xml version="1.0" encoding="UTF-8"?>\n{said}'.encode()
    head = (
        f"HTTP/1.1 {fault.value}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        f"x-amz-request-id: fault-proxy\r\n{'Connection: close' if waits else 'Connection: keep-alive'}\r\n\r\n"
    )
    await _write(writer, head.encode() + body)
    return not waits and not request.closes


async def _final_head(upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[_Head, bool]:
    """The head of the store's reply, and whether a `100 Continue` was passed on before it."""
    leave = False
    while (head := await _read_head(upstream)).first[1].startswith("1"):
        await _write(writer, head.raw)
        leave = True
    return head, leave


async def _reply(
    method: str, fault: Fault | None, head: _Head, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Pass the store's reply on, as far as the fault lets it; whether the connection can take another request."""
    empty = method == "HEAD" or head.first[1] in ("204", "304") or head.headers.get("content-length") == "0"
    if fault is Fault.CUT_BODY and empty:
        await _write(writer, head.raw[: len(head.raw) // 2])
        return _cut(writer)
    if fault is not Fault.LOST_REPLY:
        await _write(writer, head.raw)
    if not empty:
        sent, half = 0, int(head.headers.get("content-length", 0)) // 2
        async for block in _body(upstream, head, until_closed=True):
            if fault is Fault.CUT_BODY and sent + len(block) > half:
                await _write(writer, block[: (half - sent) or len(block) // 2])
                return _cut(writer)
            if fault is not Fault.LOST_REPLY:
                await _write(writer, block)
            sent += len(block)
    if fault is Fault.LOST_REPLY:
        return _cut(writer)
    framed = empty or "content-length" in head.headers or "transfer-encoding" in head.headers
    return framed and not head.closes


def _cut(writer: asyncio.StreamWriter) -> bool:
    writer.transport.abort()
    return False
