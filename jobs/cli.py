"""The `simswap` command: find the job, run it, one JSON object on stdout, an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused (consent, provenance), 130 interrupted. Progress,
warnings and whatever libraries print go to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import textwrap
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TextIO

from jobs.command import Command
from pipeline.config.reference import describe_settings
from pipeline.errors import ConfigError, SimSwapError
from pipeline.redaction import redacted
from pipeline.settings import S, load_settings

_SETTING = re.compile(r"[A-Za-z_][\w.-]*=")

COMMANDS = (
    "demo",
    "prepare",
    "train",
    "evaluate",
    "swap",
    "preview",
    "status",
    "redrive",
    "gc",
    "submit",
    "jobs",
    "doctor",
    "estimate",
    "portraits",
    "import-checkpoint",
    "export",
    "describe",
)
"""Names, in the order of the help. Each is a module of that name with its `COMMAND` and its `run(words, dry_run)`."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: the command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    given = _flags_as_settings(list(sys.argv[1:] if words is None else words))
    dry_run = "--dry-run" in given  # wherever it stands
    arguments = _parser(given).parse_args([word for word in given if word != "--dry-run"])
    result: dict[str, Any] = {"command": arguments.command, "status": "failed", "error": "a bug: see stderr"}
    with _clean_stdout() as stdout:
        try:
            result, code = _run(arguments.command, arguments.words, dry_run)
        finally:
            stdout.write(json.dumps(redacted(result), default=str) + "\n")
    return code


def _run(command: str, words: Sequence[str], dry_run: bool) -> tuple[dict[str, Any], int]:
    """The job's result and exit code, whatever becomes of it."""
    try:
        result: dict[str, Any] = _job(command).run(words, dry_run)
        return result, result.pop("exit_code", 1 if result.get("status") == "failed" else 0)
    except SimSwapError as error:
        print(f"simswap {command}: {error}", file=sys.stderr)
        return {"command": command, "status": "failed", "error": str(error)}, error.exit_code
    except KeyboardInterrupt:
        print(f"simswap {command}: interrupted; the same command goes on", file=sys.stderr)
        return {"command": command, "status": "interrupted"}, 130


def command_named(name: str) -> Command:
    """The contract of a command."""
    command: Command = _job(name).COMMAND
    return command


def _job(command: str) -> Any:
    return importlib.import_module(f"jobs.{command.replace('-', '_')}")


def _flags_as_settings(words: Sequence[str]) -> list[str]:
    """The settings of commands whose words are another job's: `--address URL` as `address=URL`."""
    name = next((word for word in words if not word.startswith("-")), "")
    if name not in COMMANDS or not command_named(name).flags:
        return list(words)
    fields = command_named(name).settings.model_fields
    made: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        field = fields.get(name.replace("-", "_")) if word.startswith("--") else None
        if field is None:
            made.append(word)
            continue
        if not equals:
            value = "true" if field.annotation is bool else next(rest, "")
        made.append(f"{name.replace('-', '_')}={value}")
    return made


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; settings are listed where the given words ask for help."""
    parser = argparse.ArgumentParser(
        prog="simswap", description="Face swapping with SimSwap as a distributed batch job."
    )
    parser.add_argument("--version", action="version", version=f"simswap-ray {version('simswap-ray')}")
    help_wanted = not {"-h", "--help"}.isdisjoint(given)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        contract = command_named(name)
        command = commands.add_parser(
            name,
            help=contract.says,
            description=contract.says,
            usage=f"simswap {name} {contract.usage()} [--dry-run]",
            epilog=_settings_help(contract) if help_wanted and name in given else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("words", nargs="*", metavar="WORD", help="files, and settings as section.key=value")
        command.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    return parser


def _settings_help(command: Command) -> str:
    """Every setting with its default and meaning."""
    lines = ["settings:"]
    for setting in describe_settings(command.settings):
        name = command.spelled(setting.name)
        lines.append(f"  {name}=" + ("  (needed)" if setting.needed else json.dumps(setting.default)))
        choices = [str(choice) for choice in setting.schema.get("enum", ())]
        says = setting.meaning + (f" One of {', '.join(choices)}." if choices else "")
        lines += textwrap.wrap(says, 100, initial_indent="      ", subsequent_indent="      ")
    if command.settings_of:
        lines.append(f"and those of {' or '.join(f'simswap {name}' for name in command.settings_of)}")
    return "\n".join(lines).replace("%", "%%")


@contextmanager
def _clean_stdout() -> Iterator[TextIO]:
    """Send everything that libraries print to stderr; gives the real stdout for the one result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as real:
            yield real
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def split_own(kind: type[S], words: Sequence[str]) -> tuple[S, list[str]]:
    """The settings of a command whose other words are another job's, and those words.

    Raises:
        ConfigError: its own settings are wrong.
    """
    own = [word for word in words if word.partition("=")[0] in kind.model_fields]
    return load_settings(kind, None, own), [word for word in words if word not in own]


def split_words(words: Sequence[str], names: Collection[str]) -> tuple[list[str], list[str]]:
    """Split a command's words into its files and its settings.

    Args:
        words: of the command line.
        names: what the files are called, for the error; one in brackets may be left out.

    Raises:
        ConfigError: fewer or more files than names.
    """
    settings = [word for word in words if _SETTING.match(word)]
    files = [word for word in words if word not in settings]
    needed = [name for name in names if not name.startswith("[")]
    if not len(needed) <= len(files) <= len(names):
        number = str(len(names)) if len(needed) == len(names) else f"{len(needed)} to {len(names)}"
        problem = f"needs {number} file{'s' * (len(names) != 1)} ({' '.join(names) or 'none'}), got {len(files)}"
        raise ConfigError(
            "command line", f"{problem}: {' '.join(files)}", "Quote a setting that holds spaces; see --help"
        )
    return files, settings


if __name__ == "__main__":
    sys.exit(main())
