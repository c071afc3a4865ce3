"""From a YAML file and `section.key=value` words to one checked tree of settings."""

from __future__ import annotations

import copy
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config import Section
from pipeline.config.reference import section_of
from pipeline.errors import ConfigError

S = TypeVar("S", bound=Section)


def load_settings(kind: type[S], path: str | None, words: Sequence[str], base: Mapping[str, Any] | None = None) -> S:
    """Settings of one job: default in the class < YAML file < `section.key=value`.

    Args:
        kind: the job's settings class.
        path: YAML file with what differs from the defaults; None for none.
        words: overrides, for example `swapper.batch_size=16`.
        base: a tree that is there already, in the place of a file.

    Raises:
        ConfigError: everything that is wrong, in one message; unknown names come with the nearest known one.
    """
    tree = _read_yaml(path) if path is not None else copy.deepcopy(dict(base or {}))
    _refuse_unknown(kind, tree, path or "command line")
    where = " with ".join(part for part in (path, "the command line" if words else "") if part) or "settings"
    for word in words:
        _override(kind, tree, word)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(where, "; ".join(_sentence(e) for e in error.errors())) from None


def known_settings(kind: type[Section], prefix: str = "") -> list[str]:
    """Dotted names of all settings of a tree, sections included, in order."""
    names = []
    for name, field in kind.model_fields.items():
        names.append(prefix + name)
        section = section_of(field.annotation)
        if section is not None:
            names += known_settings(section, f"{prefix}{name}.")
    return names


def flatten(settings: Section, prefix: str = "") -> dict[str, Any]:
    """A tree of settings as dotted names and values."""
    flat: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return flat


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read ({error})", "Give the path of a YAML settings file") from error
    except yaml.YAMLError as error:
        raise ConfigError(path, f"not valid YAML ({' '.join(str(error).split())})") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(path, "not a YAML mapping", "Write `key: value` lines")
    return tree


def _refuse_unknown(kind: type[Section], tree: Mapping[str, Any], where: str) -> None:
    unknown = [name for name in _names_in(kind, tree) if name not in set(known_settings(kind))]
    if unknown:
        raise ConfigError(where, "; ".join(_no_setting(kind, name) for name in unknown))


def _names_in(kind: type[Section], tree: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name, value in tree.items():
        yield f"{prefix}{name}"
        field = kind.model_fields.get(str(name))
        section = section_of(field.annotation) if field else None
        if section is not None and isinstance(value, Mapping):
            yield from _names_in(section, value, f"{prefix}{name}.")


def _no_setting(kind: type[Section], name: str) -> str:
    known = known_settings(kind)
    by_leaf = [k for k in known if k.rpartition(".")[2] == name.rpartition(".")[2]]
    near = by_leaf or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _override(kind: type[Section], tree: dict[str, Any], word: str) -> None:
    name, equals, text = word.partition("=")
    if not equals:
        raise ConfigError(word, "not a setting", "Write section.key=value")
    *sections, leaf = name.split(".")
    field_kind: type[Section] | None = kind
    branch = tree
    for section in sections:
        field = field_kind.model_fields.get(section) if field_kind else None
        field_kind = section_of(field.annotation) if field else None
        below = branch.setdefault(section, {}) if field_kind else None
        if not isinstance(below, dict):
            raise ConfigError(word, _no_setting(kind, name))
        branch = below
    if field_kind is None or leaf not in field_kind.model_fields:
        raise ConfigError(word, _no_setting(kind, name))
    branch[leaf] = _value(text, field_kind.model_fields[leaf].annotation, word)


def _value(text: str, annotation: Any, word: str) -> Any:
    """Plain text where the setting is text, else what YAML makes of it."""
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if str in members:
        return None if type(None) in members and text in ("null", "none", "None") else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(word, "the value is not valid YAML", "Quote it, or write [a, b] or {a: b}") from error


def _sentence(error: ErrorDetails) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{name} is needed; add {name}=…"
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}.{said}" if name else said
    return f"{name}={error['input']!r}: {said[0].lower()}{said[1:]}"
