"""The settings of a job as data: for `--help`, for docs/settings.md, for editors and for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.config.base import Section


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: dotted, as on the command line.
        schema: JSON Schema of the value alone: type, choices, limits, type of the items.
        default: as JSON; None also where there is none.
        needed: it has no default.
        unit: of the number, such as `s` or `px`; None where it has none, or counts what the meaning says.
        meaning: what it is, one line.
    """

    name: str
    schema: Mapping[str, Any]
    default: Any
    needed: bool
    unit: str | None
    meaning: str


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field of this annotation holds; None for a setting."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def sections(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """(dotted name, class) of a tree's sections, the tree itself first under its prefix, in order."""
    yield prefix, kind
    for name, field in kind.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield from sections(section, f"{prefix}.{name}".removeprefix("."))


def describe_settings(kind: type[Section]) -> list[Setting]:
    """Every setting of a tree, section by section, in order."""
    return [setting for prefix, section in sections(kind) for setting in settings_in(section, prefix)]


def settings_in(kind: type[Section], prefix: str) -> list[Setting]:
    """The settings of one section, without those of the sections in it.

    Args:
        kind: the section.
        prefix: its dotted name; empty for a whole tree.
    """
    settings = []
    for name, field in kind.model_fields.items():
        if section_of(field.annotation) is None:
            schema = _value_schema(_properties(kind)[name])
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            settings.append(
                Setting(
                    name=f"{prefix}.{name}".removeprefix("."),
                    schema=schema,
                    default=list(default) if isinstance(default, tuple) else default,
                    needed=field.is_required(),
                    unit=schema.pop("unit", None),
                    meaning=" ".join((field.description or "").split()),
                )
            )
    return settings


def file_schema(kind: type[Section]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a settings file.

    Nothing is required in it: the command line may give what the file does not.
    """
    schema = kind.model_json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        section.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def _properties(kind: type[Section]) -> Mapping[str, Any]:
    """JSON Schema of each field."""
    properties: Mapping[str, Any] = kind.model_json_schema()["properties"]
    return properties


def _value_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A property's schema without what a `Setting` says itself, and with null as one more type."""
    value = {key: said for key, said in schema.items() if key not in ("title", "description", "default")}
    given = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(given) == 1:
        del value["anyOf"]
        value |= given[0] | {"type": [given[0]["type"], "null"]}
        if "enum" in value:
            value["enum"] = [*value["enum"], None]
    return value
