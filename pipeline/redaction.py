"""Passwords in addresses: never in records, results or logs."""

from __future__ import annotations

import re
from typing import Any

_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")


def redacted(value: Any) -> Any:
    """A JSON tree, or a text, whose addresses tell no password: `user:***@host`."""
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1***@", value)
    if isinstance(value, dict):
        return {key: redacted(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(one) for one in value]
    return value


def has_password(text: str) -> bool:
    """Whether an address in a text tells a password."""
    return _PASSWORD.search(text) is not None
