from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from jobs.cli import COMMANDS, command_named
from pipeline.config import PreviewConfig, RayConfig, Section, SwapConfig, TrainConfig
from pipeline.config.base import SUFFIX_UNITS
from pipeline.config.reference import Setting, describe_settings, file_schema, section_of, sections
from pipeline.settings import known_settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
KINDS = {name: command_named(name).settings for name in COMMANDS}
SETTINGS = {name: {one.name: one for one in describe_settings(kind)} for name, kind in KINDS.items()}
EVERY = [one for settings in SETTINGS.values() for one in settings.values()]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_setting_that_is_taken_is_described_once_and_says_what_it_is(kind: type[Section]) -> None:
    described = describe_settings(kind)
    names = [one.name for one in described]
    taken = known_settings(kind)
    assert sorted(names) == sorted(name for name in taken if not any(other.startswith(f"{name}.") for other in taken))
    assert [one.name for one in described if not one.meaning] == []


def test_a_default_is_what_the_job_gets_and_is_allowed() -> None:
    needed = ["inputs=in", "output=out", "source=s.jpg", "checkpoint=c.safetensors", "models=pack"]
    got = load_settings(SwapConfig, None, needed).model_dump(mode="json")
    for one in describe_settings(SwapConfig):
        value = got
        for part in one.name.split("."):
            value = value[part]
        assert one.needed or one.name in ("checkpoint", "models") or value == one.default, one.name
    for one in EVERY:
        assert one.needed or Draft202012Validator(one.schema).is_valid(one.default), one.name


def test_a_section_given_in_part_keeps_the_other_defaults() -> None:
    """A default that only an instance holds would be lost as soon as one setting beside it is given."""
    for kind in KINDS.values():
        for _, section in sections(kind):
            for name, field in section.model_fields.items():
                inner = section_of(field.annotation)
                assert inner is None or field.default == inner(), f"{section.__name__}.{name}"


@pytest.mark.parametrize(
    ("command", "name", "unit"),
    [
        ("swap", "videos.ease_s", "s"),
        ("swap", "videos.segments.seconds", "s"),
        ("swap", "images.max_bytes", "bytes"),
        ("swap", "images.max_pixels", "px"),
        ("swap", "max_failed_fraction", "fraction"),
        ("swap", "selection.min_cosine", "cosine"),
        ("swap", "mask.erode", "crop sides"),
        ("swap", "pools.swap.gpus", "GPUs"),
        ("swap", "videos.segments.frames", None),
        ("swap", "output", None),
        ("train", "model.crop_size", "px"),
        ("train", "feed.augmentation.rotate_degrees", "degrees"),
        ("preview", "at_s", "s"),
        ("prepare", "filters.max_yaw", "degrees"),
    ],
)
def test_a_number_says_its_unit(command: str, name: str, unit: str | None) -> None:
    assert SETTINGS[command][name].unit == unit


def test_what_a_name_says_of_the_unit_is_so() -> None:
    ends = {end: [one for one in EVERY if one.name.endswith(end)] for end in SUFFIX_UNITS}
    assert [end for end, settings in ends.items() if not settings] == []
    for end, settings in ends.items():
        assert {one.unit for one in settings} == {SUFFIX_UNITS[end]}, end
    assert [one.name for one in EVERY if one.unit and not {"integer", "number"} & _types(one)] == []


def _types(setting: Setting) -> set[str]:
    kinds = setting.schema["type"]
    return {kinds} if isinstance(kinds, str) else set(kinds)


def test_a_schema_tells_type_choices_limits_and_items() -> None:
    swap, train = SETTINGS["swap"], SETTINGS["train"]
    assert swap["policy.no_face"].schema == {"enum": ["fail", "drop", "blur", "copy"], "type": "string"}
    assert swap["images.jpeg_quality"].schema == {"minimum": 1, "maximum": 100, "type": ["integer", "null"]}
    assert swap["selection.mapping"].schema == {"additionalProperties": {"type": "string"}, "type": "object"}
    assert swap["selection.mapping"].default == {}
    items = {"exclusiveMinimum": 0, "type": "integer"}
    assert train["model.widths"].schema == {"items": items, "minItems": 1, "type": "array"}
    assert (train["data"].needed, train["data"].default, train["initial"].needed) == (True, None, False)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_files_satisfy_the_schema_that_editors_check_by(path: Path) -> None:
    kind = KINDS[path.stem.partition("-")[0]]
    assert list(Draft202012Validator(file_schema(kind)).iter_errors(yaml.safe_load(path.read_text()) or {})) == []


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        (SwapConfig, {"swapper": {"batchsize": 3}}),
        (SwapConfig, {"swaper": {}}),
        (SwapConfig, {"swapper": {"batch_size": 0}}),
        (SwapConfig, {"swapper": {"batch_size": "many"}}),
        (SwapConfig, {"policy": {"no_face": "ignore"}}),
        (PreviewConfig, {"width": 10}),
        (TrainConfig, {"optimiser": {"betas": [0.1]}}),
    ],
)
def test_the_schema_refuses_what_the_command_refuses(kind: type[Section], tree: dict[str, Any]) -> None:
    schema = file_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert not Draft202012Validator(schema).is_valid(tree)
    assert Draft202012Validator(schema).is_valid({})


def test_a_schema_made_for_editors_changes_nothing_of_the_settings() -> None:
    file_schema(SwapConfig)
    assert "inputs" in SwapConfig.model_json_schema()["required"]
    assert RayConfig().model_dump() == RayConfig.model_validate({}).model_dump()
