"""`python -m jobs.settings_page > docs/settings.md` (`make docs`): every setting, for people."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jobs.cli import COMMANDS, command_named
from jobs.command import EXIT_CODES
from pipeline.config import Section
from pipeline.config.reference import Setting, sections, settings_in

_INTRODUCTION = """# Settings

Every setting of every command. `make docs` writes this page from the code; `simswap COMMAND --help` says the same in a
terminal, and `simswap describe` tells it to programs, with what each command reads, writes and answers.

What holds is: default < YAML file < `section.key=value` on the command line. A file has what differs from the defaults:
```yaml
swapper: {batch_size: 32, precision: bfloat16}      # on the command line: swapper.batch_size=32
policy: {no_face: copy}
```
`null` (None in the texts) is nothing. A list is `[a, b]`, a map `{a: b}`; in a shell they want quotes. Editors that
know YAML check a file by the schema of `simswap describe swap form=schema > swap.schema.json`, which the file's
first line names: `# yaml-language-server: $schema=swap.schema.json`.

A unit *fraction* is a number from 0 to 1; *crop sides* and *face sizes* are parts or multiples of those lengths."""

_HEAD = "| setting | type | unit | default | what it is |\n|---|---|---|---|---|"


def settings_page() -> str:
    """The page, as Markdown."""
    blocks = [_INTRODUCTION]
    homes: dict[type[Section], str] = {}
    for name in COMMANDS:
        blocks += _command(name, homes)
    return "\n\n".join([*blocks, _environment(), _exit_codes()]) + "\n"


def _command(name: str, homes: dict[type[Section], str]) -> Iterator[str]:
    """A command's part of the page.

    Args:
        name: of the command.
        homes: section -> heading it stands under; what is printed now is added.
    """
    command = command_named(name)
    yield f"## simswap {name}"
    yield f"`simswap {name} {command.usage()}`: {command.says}."
    also = [_link(homes[base]) for base in command.settings.__mro__[1:] if base in homes]
    also += [_link(f"simswap {other}") for other in command.settings_of]
    if also:
        yield f"All settings of {' or '.join(also)}, and:"
    for prefix, section in sections(command.settings):
        heading = f"{name}: {prefix}" if prefix else f"simswap {name}"
        if section in homes:
            if not also:
                yield f"`{prefix}`: the settings of {_link(homes[section])}."
            continue
        homes[section] = heading
        if prefix:
            yield f"### {heading}"
            yield " ".join((section.__doc__ or "").split())
        own = [one for one in settings_in(section, prefix) if not (also and one.name in _inherited(section))]
        if own:
            yield _table(own, command.spelled)


def _inherited(section: type[Section]) -> set[str]:
    """Names that a section has from another one."""
    return {name for base in section.__bases__ if issubclass(base, Section) for name in base.model_fields}


def _table(settings: Sequence[Setting], spelled: Callable[[str], str]) -> str:
    rows = [_HEAD]
    for one in settings:
        default = "needed" if one.needed else f"`{json.dumps(one.default, ensure_ascii=False)}`"
        cells = (f"`{spelled(one.name)}`", type_words(one.schema), one.unit or "", default, one.meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def type_words(schema: Mapping[str, Any]) -> str:
    """What a JSON Schema of a value says, in words: `integer > 0`, `list of text`, `a, b or null`."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "enum" in schema:
        words = ", ".join(f"`{choice}`" for choice in schema["enum"] if choice is not None)
    elif "prefixItems" in schema:
        words = f"{len(schema['prefixItems'])} of {type_words(schema['prefixItems'][0])}"
    elif "items" in schema:
        words = f"list of {type_words(schema['items'])}"
    elif kinds[0] == "object":
        words = f"map of text to {type_words(schema['additionalProperties'])}"
    else:
        words = {"string": "text", "boolean": "true or false"}.get(kinds[0], str(kinds[0])) + _limits(schema)
    return f"{words} or null" if "null" in kinds else words


def _limits(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    if "minimum" in schema and "maximum" in schema:
        return f" {schema['minimum']:g} to {schema['maximum']:g}"
    said = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f" {', '.join(said)}" if said else ""


def _environment() -> str:
    """Variables, what they say, and which commands read them."""
    readers: dict[tuple[str, str], list[str]] = {}
    for name in COMMANDS:
        for variable in command_named(name).environment.items():
            readers.setdefault(variable, []).append(name)
    rows = [f"| `{variable}` | {says} | {', '.join(names)} |" for (variable, says), names in readers.items()]
    head = "## Environment\n\nCredentials come from the environment or a profile, never from settings."
    return "\n".join([f"{head}\n", "| variable | what it says | commands |", "|---|---|---|", *rows])


def _exit_codes() -> str:
    rows = [f"| {code} | {says} |" for code, says in EXIT_CODES.items()]
    return "\n".join(["## Exit codes\n", "| code | what it means |", "|---|---|", *rows])


def _link(heading: str) -> str:
    """A link to a heading of the page, as GitHub and most others name it."""
    anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return f"[{heading.removeprefix('simswap ')}](#{anchor})"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
