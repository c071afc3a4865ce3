from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from jobs.cli import COMMANDS, command_named
from jobs.command import EXIT_CODES
from jobs.settings_page import settings_page, type_words
from pipeline import errors
from pipeline.settings import known_settings
from tests.contracts import broken_contract

ROOT = Path(__file__).resolve().parents[3]


def described(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["describe", *words])
    return code, json.loads(capfd.readouterr().out)


def test_all_commands_are_described_at_once_without_anything_heavy() -> None:
    code = (
        "import sys, time; from jobs.cli import main; code = main(['describe']);"
        "heavy = {'ray', 'torch', 'mlflow', 'insightface', 'cv2', 'numpy', 'pyarrow'} & set(sys.modules);"
        "sys.exit(10 if heavy else 11 if time.process_time() > 1.5 else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["commands"]) == list(COMMANDS)


def test_one_command_is_described_alone(capfd: pytest.CaptureFixture[str]) -> None:
    code, result = described(capfd, "gc")
    assert code == 0
    assert broken_contract(result) == []
    assert list(result["commands"]) == ["gc"]
    contract = result["commands"]["gc"]
    assert contract["usage"] == "simswap gc OUTPUT [key=value ...] [--dry-run]"
    (orphans,) = [one for one in contract["settings"] if one["name"] == "orphans"]
    assert (orphans["schema"], orphans["default"], orphans["needed"]) == ({"type": "boolean"}, False, False)
    assert contract["result"].keys() > {"command", "status", "removed"}
    assert contract["plan"] == contract["result"]
    assert "AWS_ACCESS_KEY_ID" in contract["environment"]


def test_a_needed_setting_has_no_default(capfd: pytest.CaptureFixture[str]) -> None:
    _, result = described(capfd, "import-checkpoint")
    contract = result["commands"]["import-checkpoint"]
    assert contract["usage"] == "simswap import-checkpoint IN.pth OUT.safetensors variant=V encoder=E [--dry-run]"
    assert [(one["name"], one["needed"], "default" in one) for one in contract["settings"]] == [
        ("variant", True, False),
        ("encoder", True, False),
    ]


def test_a_schema_is_that_of_the_commands_file(capfd: pytest.CaptureFixture[str]) -> None:
    code, schema = described(capfd, "swap", "form=schema")
    assert (code, schema["title"], schema["additionalProperties"]) == (0, "SwapConfig", False)
    assert "required" not in schema


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["swop"], "swop: no such command. There are demo, prepare"),
        (["form=schema"], "needs a command that takes a settings file. Name one of prepare, train, evaluate, swap"),
        (["gc", "form=schema"], "needs a command that takes a settings file"),
        (["swap", "train"], "needs 0 to 1 file"),
    ],
)
def test_what_cannot_be_described_is_wrong_use(words: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, result = described(capfd, *words)
    assert code == 2
    assert says in result["error"]


@pytest.mark.parametrize("name", COMMANDS)
def test_places_are_named_by_settings_and_words(name: str) -> None:
    command = command_named(name)
    known = {*known_settings(command.settings), *command.words}
    for other in command.settings_of:
        known |= set(known_settings(command_named(other).settings))
    named = {found for place in [*command.reads, *command.writes] for found in re.findall(r"{([^}]*)}", place)}
    assert named <= known
    texts = [*command.reads.values(), *command.writes.values(), *command.result.values(), *command.words.values()]
    assert all([command.says, *texts])


def test_the_environment_that_the_code_asks_is_declared() -> None:
    trees = [ast.parse(path.read_text()) for top in ("pipeline", "cluster") for path in (ROOT / top).rglob("*.py")]
    asked = {variable for tree in trees for variable in variables_in(tree)}
    declared = {variable for name in COMMANDS for variable in command_named(name).environment}
    assert {"AWS_REGION", "XDG_STATE_HOME", "SIMSWAP_CACHE", "RAY_AUTH_TOKEN"} <= asked
    assert asked - declared == {"SIMSWAP_FAILPOINTS"}  # of the tests


def variables_in(tree: ast.Module) -> set[str]:
    """Environment variables that a module reads: `os.environ.get(NAME)` and `os.environ[NAME]`, also by a constant."""
    constants = {
        target.id: one.value.value
        for one in tree.body
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.environ.get":
            names.append(node.args[0])
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ" and not _set(node):
            names.append(node.slice)
    said = [constants.get(one.id) if isinstance(one, ast.Name) else getattr(one, "value", None) for one in names]
    return {one for one in said if isinstance(one, str)}


def _set(node: ast.Subscript) -> bool:
    return isinstance(node.ctx, ast.Store)


def test_exit_codes_cover_every_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SimSwapError)]
    assert len(kinds) > 10
    assert {kind("a", "b").exit_code for kind in kinds} | {0, 130} == set(EXIT_CODES)


def test_the_settings_page_is_what_the_code_says() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == settings_page(), "run `make docs`"


def test_links_of_the_settings_page_lead_to_its_headings() -> None:
    page = settings_page()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    linked = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert len(linked) > 3
    assert linked <= anchors


def test_every_setting_has_its_row_on_the_settings_page() -> None:
    page = settings_page()
    for name in ("pools.swap.workers", "pools.analyse.cpus", "videos.ease_s", "film", "reasons", "losses.identity"):
        assert len(re.findall(rf"^\| `{re.escape(name)}` \|", page, re.MULTILINE)) == 1, name
    assert "| `pools.swap.workers` | integer > 0 |  | `2` |" in page


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": ["boolean", "null"]}, "true or false or null"),
        ({"type": "integer", "exclusiveMinimum": 0}, "integer > 0"),
        ({"type": "number", "minimum": 0, "maximum": 0.45}, "number 0 to 0.45"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number ≥ 0, < 1"),
        ({"type": "string", "enum": ["a", "b"]}, "`a`, `b`"),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of integer ≥ 1"),
        ({"type": "array", "prefixItems": [{"type": "number"}] * 3}, "3 of number"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "map of text to text"),
    ],
)
def test_a_schema_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_words(schema) == words
