"""What stores say when they refuse or do not answer: whether it may pass, and how it is told to people."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from pipeline.errors import StoreError


class Fate(Enum):
    """What becomes of a request that failed."""

    FOREVER = auto()
    """Trying again changes nothing."""
    STALLED = auto()
    """The client has waited for an answer in vain, several times."""
    UNREACHABLE = auto()
    """Nobody is there."""
    PASSES = auto()
    """It may go well the next time."""


class _Meaning(NamedTuple):
    fate: Fate
    problem: str
    mend: str


_KEYS = "Check AWS_ACCESS_KEY_ID or AWS_PROFILE"
_SECRET = "Check AWS_SECRET_ACCESS_KEY or AWS_PROFILE"  # noqa: S105
_DENIED = _Meaning(
    Fate.FOREVER, "access denied (403)", "Check the credentials in the environment, and what they may do"
)
_UNREACHABLE = _Meaning(Fate.UNREACHABLE, "the store cannot be reached", "Check AWS_ENDPOINT_URL and the network")

_STALLED = _Meaning(Fate.STALLED, "the store does not answer", "Try again later, or raise storage.request_timeout_s")

_LATER = ("404", "408", "409", "425", "429")
"""Refusals that may pass, or that have a meaning of their own."""

_MEANINGS = {
    "nosuchbucket": _Meaning(Fate.FOREVER, "no such bucket", "Make it, or check the name"),
    "invalidbucketname": _Meaning(Fate.FOREVER, "no such bucket can be", "Check the name"),
    "invalidaccesskeyid": _Meaning(Fate.FOREVER, "the store does not know these credentials", _KEYS),
    "signaturedoesnotmatch": _Meaning(Fate.FOREVER, "the store refuses these credentials", _SECRET),
    "expiredtoken": _Meaning(Fate.FOREVER, "the credentials have expired", "Fetch new ones"),
    "unabletolocatecredentials": _Meaning(Fate.FOREVER, "there are no credentials", _KEYS),
    "accessdenied": _DENIED,
    "httpstatus403": _DENIED,
    "couldnotconnect": _UNREACHABLE,
    "couldnotresolve": _UNREACHABLE,
    "connectiontimedout": _UNREACHABLE,
    "operationtooslow": _Meaning(
        Fate.STALLED, "the store does not answer", "Try again later, or raise storage.request_timeout_s"
    ),
    "readtimeout": _Meaning(
        Fate.STALLED, "the store does not answer", "Try again later, or raise storage.request_timeout_s"
    ),
    "networkconnection": _Meaning(Fate.PASSES, "the connection to the store broke", "Check the network"),
}
"""What the clients say, without case and everything but letters and digits -> what it means."""


def fate(error: Exception) -> Fate:
    """What becomes of the request that ended so."""
    meaning = _meaning(error)
    return Fate.PASSES if meaning is None else meaning.fate


def told(subject: str, error: Exception, endpoint: str | None = None) -> StoreError:
    """A fault as people read it; never with a credential.

    Args:
        subject: address of what was asked for.
        error: the client's.
        endpoint: address of the store, where it is not the usual one.
    """
    meaning = _meaning(error)
    if meaning is None:
        if isinstance(error, PermissionError) and error.strerror:
            return StoreError(subject, f"access denied ({error.strerror})", "Check its permissions")
        return StoreError(subject, without_credentials((str(error).splitlines() or [""])[0][:300]).rstrip("."))
    problem = meaning.problem
    if endpoint and meaning.fate in (Fate.UNREACHABLE, Fate.STALLED):
        problem = f"{problem} at {without_credentials(endpoint)}"
    return StoreError(subject, problem, meaning.mend)


def without_credentials(text: str) -> str:
    """A text without names and passwords before an `@` in its addresses."""
    return re.sub(r"://[^/@\s]*:[^/@\s]*@", "://", text)


def _meaning(error: Exception) -> _Meaning | None:
    if isinstance(error, TimeoutError):
        return _STALLED
    unquoted = re.sub(r"'[^']*'", "", str(error))  # names of objects and buckets
    said = re.sub(r"[^a-z0-9]", "", unquoted.lower())
    known = next((meaning for word, meaning in _MEANINGS.items() if word in said), None)
    status = re.search(r"HTTP status (4\d\d)", unquoted)
    if known is None and status is not None and status[1] not in _LATER:
        return _Meaning(Fate.FOREVER, f"the store refuses the request (HTTP {status[1]})", _DENIED.mend)
    return known
