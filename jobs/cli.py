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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TextIO

from pipeline.config import (
    DemoConfig,
    DoctorConfig,
    ExportConfig,
    GcConfig,
    ImportConfig,
    JobsConfig,
    PortraitsConfig,
    PrepareConfig,
    PreviewConfig,
    RedriveConfig,
    Section,
    StatusConfig,
    SubmitConfig,
    SwapConfig,
    TrainConfig,
)
from pipeline.errors import ConfigError, SimSwapError
from pipeline.settings import describe_settings

_SETTING = re.compile(r"[A-Za-z_][\w.-]*=")

COMMANDS: dict[str, tuple[str, str, type[Section]]] = {
    "demo": ("[key=value ...]", "make portraits, swap them, make a report: needs nothing", DemoConfig),
    "prepare": ("CONFIG.yaml [key=value ...]", "make a training set of a folder of photographs", PrepareConfig),
    "train": ("CONFIG.yaml [key=value ...]", "train a generator on a prepared set", TrainConfig),
    "swap": ("CONFIG.yaml [key=value ...]", "replace the faces in a folder of images and videos", SwapConfig),
    "preview": ("CONFIG.yaml [key=value ...]", "show what the swap of a video will look like", PreviewConfig),
    "status": ("OUTPUT [key=value ...]", "tell how a swap stands", StatusConfig),
    "redrive": ("OUTPUT [reasons=[R, ...]] [key=value ...]", "do inputs of a swap that failed again", RedriveConfig),
    "gc": ("OUTPUT [key=value ...]", "remove what killed jobs have left in an output", GcConfig),
    "submit": ("COMMAND CONFIG.yaml [key=value ...] [--address URL]", "give a job to a cluster", SubmitConfig),
    "jobs": ("list | status ID | logs ID | stop ID [--address URL]", "look after the jobs of a cluster", JobsConfig),
    "doctor": ("[COMMAND CONFIG.yaml [key=value ...]] [--address URL]", "look for what would stop a job", DoctorConfig),
    "portraits": ("FOLDER [key=value ...]", "draw a labelled set of procedural photographs", PortraitsConfig),
    "import-checkpoint": (
        "IN.pth OUT.safetensors variant=V encoder=PACK",
        "turn a published state dict into a checkpoint",
        ImportConfig,
    ),
    "export": ("IN.safetensors OUT.onnx [key=value ...]", "write a generator as ONNX and check it", ExportConfig),
}
"""Command -> its words, what it does, its settings."""

_WITH_FLAGS = ("submit", "jobs", "doctor")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: the command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    given = _flags_as_settings(list(sys.argv[1:] if words is None else words))
    dry_run = "--dry-run" in given  # wherever it stands
    arguments = _parser().parse_args([word for word in given if word != "--dry-run"])
    result: dict[str, Any] = {"command": arguments.command, "status": "failed", "error": "a bug: see stderr"}
    with _clean_stdout() as stdout:
        try:
            result, code = _run(arguments.command, arguments.words, dry_run)
        finally:
            stdout.write(json.dumps(result, default=str) + "\n")
    return code


def _run(command: str, words: Sequence[str], dry_run: bool) -> tuple[dict[str, Any], int]:
    """The job's result and exit code, whatever becomes of it."""
    try:
        job = importlib.import_module(f"jobs.{command.replace('-', '_')}")
        result: dict[str, Any] = job.run(words, dry_run)
        return result, result.pop("exit_code", 1 if result["status"] == "failed" else 0)
    except SimSwapError as error:
        print(f"simswap {command}: {error}", file=sys.stderr)
        return {"command": command, "status": "failed", "error": str(error)}, error.exit_code
    except KeyboardInterrupt:
        print(f"simswap {command}: interrupted; the same command goes on", file=sys.stderr)
        return {"command": command, "status": "interrupted"}, 130


def _flags_as_settings(words: Sequence[str]) -> list[str]:
    """The settings of commands whose words are another job's: `--address URL` as `address=URL`."""
    command = next((word for word in words if not word.startswith("-")), "")
    if command not in _WITH_FLAGS:
        return list(words)
    fields = COMMANDS[command][2].model_fields
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="simswap", description="Face swapping with SimSwap as a distributed batch job."
    )
    parser.add_argument("--version", action="version", version=f"simswap-ray {version('simswap-ray')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (usage, says, settings) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=says,
            description=says,
            usage=f"simswap {name} {usage} [--dry-run]",
            epilog=_settings_help(settings),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("words", nargs="*", metavar="WORD", help="files, and settings as section.key=value")
        command.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    return parser


def _settings_help(kind: type[Section]) -> str:
    """Every setting with its default and meaning."""
    lines = ["settings:"]
    for name, default, says in describe_settings(kind):
        lines.append(f"  {name}={default}" if default else f"  {name}=  (needed)")
        lines += textwrap.wrap(says, 100, initial_indent="      ", subsequent_indent="      ")
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


def split_words(words: Sequence[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command's words into its files and its settings.

    Args:
        words: of the command line.
        names: what the files are called, for the error.

    Raises:
        ConfigError: another number of files than names.
    """
    settings = [word for word in words if _SETTING.match(word)]
    files = [word for word in words if word not in settings]
    if len(files) != len(names):
        problem = f"needs {len(names)} file{'s' * (len(names) != 1)} ({' '.join(names) or 'none'}), got {len(files)}"
        raise ConfigError(
            "command line", f"{problem}: {' '.join(files)}", "Quote a setting that holds spaces; see --help"
        )
    return files, settings


if __name__ == "__main__":
    sys.exit(main())
