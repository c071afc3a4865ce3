"""Every YAML file of the repository can be read, and says each thing once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("jobs", "cluster")
FILES = sorted(
    [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.y*ml")]
    + [*ROOT.glob("*.y*ml"), *ROOT.glob(".*.y*ml")]
)


class Once(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which plain YAML keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if isinstance(key, str) and keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(sorted(twice))}", node.start_mark)
        return super().construct_mapping(node, deep)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_yaml_file_holds_mappings_or_lists(path: Path) -> None:
    documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=Once))
    assert all(isinstance(document, dict | list) for document in documents)  # of comments alone: none


def test_no_yaml_file_is_left_out() -> None:
    names = {str(path.relative_to(ROOT)) for path in FILES}
    assert {"cluster.yaml", "jobs/configs/swap.yaml", "cluster/launchers/gcp.yaml", ".yamllint.yaml"} <= names
    assert not [path for folder in ("pipeline", "tests", "docs") for path in (ROOT / folder).rglob("*.y*ml")]


def test_a_key_that_stands_twice_is_found() -> None:
    with pytest.raises(yaml.YAMLError, match="twice: a"):
        list(yaml.load_all("b: {a: 1, a: 2}", Loader=Once))


def test_a_file_that_is_no_yaml_is_found() -> None:
    with pytest.raises(yaml.YAMLError):
        list(yaml.load_all("a: [1, 2", Loader=Once))
