"""A dataset that needs nothing: procedural portraits with their exact analysis, sources and a tiny checkpoint."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import DemoConfig, ModelConfig
from pipeline.faces.sources import identities_table
from pipeline.faces.table import write_faces
from pipeline.media.storage import write_atomically
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.model.generator import initialised
from pipeline.synthetic.people import Appearance, Attributes, Face, Placement, Scene
from pipeline.synthetic.portraits import embedding, render
from pipeline.types import Faces, Identity

ENCODER = EncoderReference("procedural-portraits", hashlib.sha256(b"procedural-portraits/1").hexdigest())
"""Stands where a recogniser's digest would: the embeddings are exact functions of the portraits' parameters."""

MODEL = ModelConfig(crop_size=64, widths=(16, 32, 64), blocks=3)


def prepare_demo(settings: DemoConfig) -> dict[str, str]:
    """Write the demo's inputs, once: a second call with the same settings changes nothing.

    Args:
        settings: of the demo.

    Returns:
        The settings of `simswap swap` that point at them.
    """
    folder = Path(settings.folder)
    paths = {
        "inputs": folder / f"portraits-{settings.scenes}-{settings.seed}",
        "output": folder / f"swapped-{settings.scenes}-{settings.seed}",
        "source": folder / "sources.parquet",
        "checkpoint": folder / "untrained-64.safetensors",
        "analysis.read_table": folder / f"analysis-{settings.scenes}-{settings.seed}",
    }
    marker = folder / f"prepared-{settings.scenes}-{settings.seed}"
    if not marker.exists():
        _write_sources(paths["source"])
        save_checkpoint(
            str(paths["checkpoint"]), initialised(MODEL).state_dict(), MODEL, ENCODER, {"steps": 0, "trained": False}
        )
        _write_scenes(paths["inputs"], paths["analysis.read_table"], settings)
        write_atomically(marker, b"")
    return {name: str(path) for name, path in paths.items()}


def _write_sources(path: Path) -> None:
    """Three people who are in no scene, as a table of embeddings."""
    random = np.random.default_rng(7)
    people = [Identity(f"stranger-{n}", embedding(Appearance.sample(random)), "synthetic") for n in (1, 2, 3)]
    buffer = io.BytesIO()
    pq.write_table(identities_table(people), buffer)
    write_atomically(path, buffer.getvalue())


def _write_scenes(inputs: Path, table: Path, settings: DemoConfig) -> None:
    random = np.random.default_rng(settings.seed)
    analysed = []
    for number in range(settings.scenes):
        crowd = 1 + number % 4
        scene = _scene(random, crowd)
        buffer = io.BytesIO()
        kind, suffix = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
        Image.fromarray(scene.frame).save(buffer, kind)
        item = f"{'alone' if crowd == 1 else 'groups'}/{number:03d}.{suffix}"
        write_atomically(inputs / item, buffer.getvalue())
        analysed.append((item, hashlib.sha256(buffer.getvalue()).hexdigest(), _faces(scene)))
    write_faces(str(table), analysed, ENCODER.digest)


def _scene(random: np.random.Generator, crowd: int) -> Scene:
    """A few people side by side before a textured background."""
    width, height = 320 * crowd, 400
    people: list[Face] = []
    for place in range(crowd):
        centre = 320 * (place + 0.5) + random.uniform(-15, 15)
        placement = Placement(centre, random.uniform(180, 210), random.uniform(190, 230))
        people.append((Appearance.sample(random), Attributes.sample(random), placement))
    return render(people, width, height, int(random.integers(1 << 31)))


def _faces(scene: Scene) -> Faces:
    count = len(scene.spec.faces)
    return Faces(
        frame=np.zeros(count, np.int64),
        box=scene.box,
        landmarks=scene.landmarks,
        score=np.ones(count, np.float32),
        embedding=np.stack([embedding(appearance) for appearance, _, _ in scene.spec.faces]),
    )
