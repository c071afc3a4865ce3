from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from pipeline.config import TrainConfig
from pipeline.model.generator import Generator
from pipeline.model.projected import build_discriminator
from pipeline.settings import load_settings

CONFIGS = Path(__file__).resolve().parents[2] / "jobs" / "configs"
PRESETS = sorted(path.stem for path in CONFIGS.glob("train-*.yaml"))
MILLIONS = {
    "train-tiny": (0.61, 0.86),
    "train-tiny-finish": (0.61, 0.86),
    "train-112": (16.11, 3.42),
    "train-224": (55.05, 13.92),
    "train-224-reference": (55.05, 13.92),
    "train-512": (59.77, 20.88),
    "train-1024": (59.80, 20.98),
}
"""Weights of generator and discriminator."""


def preset(name: str) -> TrainConfig:
    return load_settings(TrainConfig, str(CONFIGS / f"{name}.yaml"), ["data=d", "output=o", "models=m"])


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def millions(network: nn.Module) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 2)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_the_networks_it_promises(name: str) -> None:
    settings = preset(name)
    with torch.device("meta"):
        generator = Generator(settings.model)
        discriminator = build_discriminator(settings.discriminator, settings.model.crop_size, 0)
    assert (millions(generator), millions(discriminator)) == MILLIONS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_matches_some_features_but_not_the_shallow_ones(name: str) -> None:
    settings = preset(name)
    layers = len(settings.discriminator.widths) + 1
    assert layers / 2 <= settings.losses.first_layer < layers


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_only_what_differs_from_the_defaults(name: str) -> None:
    defaults = dict(leaves(TrainConfig(data="d", output="o", models="m").model_dump(mode="json")))
    written = leaves(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    assert [setting for setting, value in written if defaults[setting] == value] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_the_command_that_uses_it(name: str) -> None:
    first = (CONFIGS / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# simswap train jobs/configs/{name}.yaml data=DIR output=DIR models=PACK"
