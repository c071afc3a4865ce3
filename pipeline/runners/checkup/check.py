"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from pipeline.errors import SimSwapError

Level = Literal["ok", "skipped", "warning", "fault"]

_ORDER: tuple[Level, ...] = ("ok", "skipped", "warning", "fault")


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found.

    Attributes:
        name: of the thing: `packages`, `output`, `cluster`.
        level: `fault` where a job would fail, or would not be safe; `warning` where it would be slower or worse.
        says: what was found.
        mend: what to do about it; empty where nothing needs to be done.
    """

    name: str
    level: Level
    says: str
    mend: str = ""

    @classmethod
    def of(cls, name: str, error: SimSwapError) -> Check:
        """The fault that an error tells of."""
        return cls(name, "fault", f"{error.subject}: {error.problem}", error.mend)

    @classmethod
    def tried(cls, name: str, look: Callable[[], str]) -> Check:
        """What a look says, or the fault that it raises."""
        try:
            return cls(name, "ok", look())
        except SimSwapError as error:
            return cls.of(name, error)

    def facts(self) -> dict[str, str]:
        """As JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        mend = f" {self.mend}." if self.mend else ""
        return f"{self.level:<8} {self.name}: {self.says}.{mend}"


def worst(checks: Iterable[Check]) -> Level:
    """The gravest of them."""
    return max((check.level for check in checks), key=_ORDER.index, default="ok")
