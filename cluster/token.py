"""The token that a Ray cluster asks for: where Ray looks for it, in Ray's order."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Token:
    """A token, which is never shown.

    Attributes:
        value: what proves the right to run code on the cluster.
        origin: an environment variable or a file.
        open_to_others: whether other users of this machine may read the file.
    """

    value: str = field(repr=False)
    origin: str
    open_to_others: bool = False


def find_token() -> Token | None:
    """RAY_AUTH_TOKEN, else the file that RAY_AUTH_TOKEN_PATH names, else `~/.ray/auth_token`; None without any.

    Raises:
        ConfigError: a file that is named and cannot be read, or is empty.
    """
    if value := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return Token(value, "RAY_AUTH_TOKEN")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or "~/.ray/auth_token").expanduser()
    if not named and not path.exists():
        return None
    try:
        value, mode = path.read_text(encoding="utf-8").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"the cluster's token cannot be read ({error})", _MEND) from error
    if not value:
        raise ConfigError(str(path), "the cluster's token is empty", _MEND)
    return Token(value, str(path), bool(mode & 0o077))


_MEND = "Copy it from the cluster's head, or make one with ray get-auth-token --generate"
