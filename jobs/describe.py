"""`simswap describe [COMMAND]`: what commands take, touch and answer, for other programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jobs.cli import COMMANDS, command_named, main, split_words
from jobs.command import EXIT_CODES, Command
from pipeline.config import DescribeConfig
from pipeline.config.reference import Setting, describe_settings, file_schema
from pipeline.errors import ConfigError
from pipeline.settings import load_settings

_ALWAYS = {"command": "its name", "status": "done, failed, interrupted, or planned with --dry-run"}
"""Keys that the result of every command has."""

COMMAND = Command(
    says="tell other programs what commands take, touch and answer",
    settings=DescribeConfig,
    words={"[COMMAND]": "name of a command; all of them where it is left out"},
    result={
        "version": "of simswap-ray",
        "options": "option of every command -> what it does",
        "streams": "stdout and stderr -> what comes out there",
        "exit_codes": "exit code -> what it means",
        "failure": "key of the result of a command that failed -> what it is",
        "commands": "name -> contract; {…} is a setting or a word, key a.b is b in a, ? may be missing, * is any key",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Describe one command or all; with form=schema the JSON Schema is the result. There is nothing to plan."""
    named, overrides = split_words(words, COMMAND.words)
    settings = load_settings(DescribeConfig, None, overrides)
    unknown = [name for name in named if name not in COMMANDS]
    if unknown:
        raise ConfigError(unknown[0], "no such command", f"There are {', '.join(COMMANDS)}")
    if settings.form == "schema":
        if not named or not command_named(named[0]).takes_file:
            taking = ", ".join(name for name in COMMANDS if command_named(name).takes_file)
            raise ConfigError("form=schema", "needs a command that takes a settings file", f"Name one of {taking}")
        return file_schema(command_named(named[0]).settings)
    return {
        "command": "describe",
        "status": "done",
        "version": version("simswap-ray"),
        "options": {"--dry-run": "print the plan and write nothing"},
        "streams": {
            "stdout": "one JSON object, the result",
            "stderr": "progress and messages: bars on a terminal, JSON lines elsewhere",
        },
        "exit_codes": EXIT_CODES,
        "failure": {**_ALWAYS, "error?": "what is wrong, and what mends it; missing where status is interrupted"},
        "commands": {name: _contract(name) for name in named or COMMANDS},
    }


def _contract(name: str) -> dict[str, Any]:
    command = command_named(name)
    return {
        "usage": f"simswap {name} {command.usage()} [--dry-run]",
        "says": command.says,
        "words": dict(command.words),
        "settings": [_setting(command, setting) for setting in describe_settings(command.settings)],
        "settings_of": list(command.settings_of),
        "reads": dict(command.reads),
        "writes": dict(command.writes),
        "environment": dict(command.environment),
        "result": _ALWAYS | dict(command.result),
        "plan": _ALWAYS | dict(command.plan or command.result),
    }


def _setting(command: Command, setting: Setting) -> dict[str, Any]:
    """A setting as JSON; a needed one has no default."""
    facts = {
        "name": command.spelled(setting.name),
        "needed": setting.needed,
        "schema": setting.schema,
        "unit": setting.unit,
        "meaning": setting.meaning,
    }
    return facts if setting.needed else facts | {"default": setting.default}


if __name__ == "__main__":
    sys.exit(main(["describe", *sys.argv[1:]]))
