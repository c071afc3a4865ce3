"""The processes below another one, as Linux lists them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def title(pid: int) -> str:
    """How a process calls itself: `ray::Board` is an actor of that class. Empty where there is none any more."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def named(pid: int, name: str) -> list[int]:
    """Those below a process whose title begins with a name."""
    return [one for one in family(pid) if title(one).startswith(name)]
