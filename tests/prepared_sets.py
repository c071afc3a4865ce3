"""Small prepared sets, made by the plain stages in this process with an analyser that gives exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import PrepareConfig
from pipeline.preparation.assembly import Gathered, gather, photos_table, set_digest, write_header, write_set
from pipeline.preparation.dataset import DatasetHeader
from pipeline.preparation.listing import Block, cut_blocks, list_photos
from pipeline.preparation.people import People, settle
from pipeline.preparation.prepare import Prepare
from pipeline.preparation.shards import write_block
from pipeline.synthetic.people import Appearance, Scene
from tests.factories import encode_png, portrait
from tests.fakes import ExactAnalyser

FILTERS = {"min_face_px": 0.0, "min_sharpness": 0.0, "max_yaw": 90.0, "max_pitch": 90.0}


def make_photos(root: Path, people: int = 3, photos: int = 4) -> list[Scene]:
    """Photographs of `people` in folders of their own, one of somebody else in the first, one broken."""
    random = np.random.default_rng(11)
    who = [Appearance.sample(random) for _ in range(people)]
    scenes = []
    for person in range(people):
        for number in range(photos):
            made = portrait(who[1 if (person, number) == (0, photos - 1) else person], random)
            path = root / "in" / f"p{person}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(made.frame))
            scenes.append(made)
    (root / "in" / "p0" / "broken.png").write_bytes(b"broken")
    return scenes


def settings_of(root: Path, **changes: Any) -> PrepareConfig:
    tree = {"inputs": str(root / "in"), "output": str(root / "out"), "models": "none", "photos_per_shard": 5}
    return PrepareConfig.model_validate(tree | {"crop_size": 64, "crop_format": "png", "filters": FILTERS} | changes)


def make_set(settings: PrepareConfig, scenes: Sequence[Scene]) -> tuple[list[Block], Gathered, People, pa.Table]:
    prepare = Prepare(settings, ExactAnalyser(scenes))
    blocks = cut_blocks(list_photos(settings).photos, settings.photos_per_shard, "recipe")
    for block in blocks:
        write_block(settings.output, block, [prepare(photo) for photo in block.photos])
    gathered = gather(settings.output, blocks)
    people = settle(gathered.labels(), gathered.photo, gathered.embeddings, settings)
    photos = photos_table(gathered, people, settings)
    write_set(settings.output, gathered, people)
    header = DatasetHeader(
        64, "arcface", "exact", "0" * 64, 512, int(people.kept.sum()), 3, set_digest("recipe", photos), "recipe"
    )
    write_header(settings.output, header)
    return blocks, gathered, people, photos
