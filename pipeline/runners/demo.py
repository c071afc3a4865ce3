"""What the demo starts from: people to train on, sources, scenes to swap, all drawn; and a generator to go on from."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import DemoConfig
from pipeline.media.local_files import write_atomically
from pipeline.portrait_pack import pack_folder, shipped_generator
from pipeline.portrait_pack.photographs import write_photographs
from pipeline.runners.progress import Progress
from pipeline.synthetic.people import Appearance, Attributes, Face, Placement, Scene
from pipeline.synthetic.portraits import render

_SOURCES_SEED = 2**31 - 1  # nobody of the people or of a scene
_SOURCES = 3


def draw_demo(settings: DemoConfig) -> dict[str, str]:
    """Write the demo's photographs, once: a second call with the same settings changes nothing.

    Args:
        settings: of the demo.

    Returns:
        Where `people` (to train on), `sources` and `scenes` (to swap) are.
    """
    folder = Path(settings.folder)
    people = folder / f"people-{settings.people}-{settings.seed}"
    sources, scenes = folder / "sources", folder / f"scenes-{settings.scenes}-{settings.seed}"
    with Progress("draw", settings.people + _SOURCES + settings.scenes) as progress:
        for number in (
            *write_photographs(people, settings.people, settings.photos, settings.seed),
            *write_photographs(sources, _SOURCES, 3, _SOURCES_SEED),
            *_write_scenes(scenes, settings),
        ):
            del number
            progress.advance(1, {})
    return {"people": str(people), "sources": str(sources), "scenes": str(scenes)}


def prepare_words(settings: DemoConfig, places: dict[str, str]) -> list[str]:
    """Settings of `simswap prepare` for the demo's people."""
    return [
        f"inputs={places['people']}",
        f"output={settings.folder}/training-set-{settings.people}-{settings.seed}",
        f"models={pack_folder('portraits')}",
        "crop_size=64",
        "crop_format=png",
        "photos_per_shard=80",
        "tracking.experiment=demo",
    ]


def train_words(settings: DemoConfig, data: str) -> list[str]:
    """Settings of `simswap train`, besides jobs/configs/train-tiny-finish.yaml: some steps on from the shipped one."""
    return [
        f"data={data}",
        f"output={settings.folder}/run-{settings.people}-{settings.seed}-{settings.steps}",
        f"models={pack_folder('portraits')}",
        f"validation.judge={pack_folder('judge')}",
        f"initial={shipped_generator()}",
        "model.mask=true",
        "losses.landmarks=10",
        f"trainer.steps={settings.steps}",
        "optimiser.lr_generator=1e-4",
        "workers.workers=2",
        "workers.cpus=0.5",
        "validation.every_steps=1000",
        "registered_model=simswap-demo",
        "tracking.experiment=demo",
    ]


def swap_words(settings: DemoConfig, places: dict[str, str], checkpoint: str) -> list[str]:
    """Settings of `simswap swap` for the demo's scenes."""
    return [
        f"inputs={places['scenes']}",
        f"output={settings.folder}/swapped-{settings.scenes}-{settings.seed}-{settings.steps}",
        f"source={places['sources']}",
        f"checkpoint={checkpoint}",
        f"models={pack_folder('portraits')}",
        "swapper.batch_size=16",
        "tracking.experiment=demo",
    ]


def _write_scenes(folder: Path, settings: DemoConfig) -> Iterator[int]:
    """Images with one to four people."""
    for number in range(settings.scenes):
        crowd = 1 + number % 4
        kind, suffix = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
        path = folder / ("alone" if crowd == 1 else "groups") / f"{number:03d}.{suffix}"
        if not path.exists():
            scene = _scene(np.random.default_rng([settings.seed, number]), crowd)
            buffer = io.BytesIO()
            Image.fromarray(scene.frame).save(buffer, kind)
            write_atomically(path, buffer.getvalue())
        yield number


def _scene(random: np.random.Generator, crowd: int) -> Scene:
    """A few people side by side before a textured background."""
    width, height = 320 * crowd, 400
    people: list[Face] = []
    for place in range(crowd):
        centre = 320 * (place + 0.5) + random.uniform(-15, 15)
        placement = Placement(centre, random.uniform(180, 210), random.uniform(190, 230))
        people.append((Appearance.sample(random), Attributes.sample(random), placement))
    return render(people, width, height, int(random.integers(1 << 31)))
