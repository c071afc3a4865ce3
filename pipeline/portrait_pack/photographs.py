"""Procedural photographs as a folder of people, the way that photographs come to `simswap prepare`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.media.local_files import write_atomically
from pipeline.synthetic.people import Appearance, Attributes, Placement
from pipeline.synthetic.portraits import render

_SIDE = 160


def person(seed: int, number: int) -> Appearance:
    """Somebody: the same seed and number give the same person, whoever else there is."""
    return Appearance.sample(np.random.default_rng([seed, number]))


def write_photographs(folder: Path, people: int, photos: int, seed: int, processes: int = 1) -> Iterator[int]:
    """Write FOLDER/person_NNNNN/NN.png; what is there already is not drawn again.

    Every photograph of a person has hair, clothes, pose, expression and light of its own.

    Args:
        folder: to write to.
        people: how many.
        photos: of each.
        seed: folders of two seeds share nobody.
        processes: that draw at the same time.

    Yields:
        How many people are complete.
    """
    jobs = [(str(folder / f"person_{number:05d}"), seed, number, photos) for number in range(people)]
    with get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap(_photograph, jobs, chunksize=4), start=1):
            yield done


def _photograph(job: tuple[str, int, int, int]) -> None:
    folder, seed, number, photos = job
    who = person(seed, number)
    for photo in range(photos):
        path = Path(folder) / f"{photo:02d}.png"
        if path.exists():
            continue
        random = np.random.default_rng([seed, number, photo + 1])
        look = Appearance.sample(random).with_identity_of(who)
        x, y = random.uniform(-4, 4, 2) + _SIDE / 2
        where = Placement(x, y, random.uniform(96, 118))
        scene = render([(look, Attributes.sample(random), where)], _SIDE, _SIDE, int(random.integers(1 << 31)))
        buffer = io.BytesIO()
        Image.fromarray(scene.frame).save(buffer, "PNG", compress_level=1)
        write_atomically(path, buffer.getvalue())
