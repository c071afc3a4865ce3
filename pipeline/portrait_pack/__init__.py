"""Networks for procedural portraits, shipped ready for use: insightface packs, a generator, and how they came to be."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PackName = Literal["portraits", "judge"]


def pack_folder(name: PackName) -> str:
    """Folder of a shipped pack, in insightface's layout: one detector, one recogniser, one landmark network.

    Args:
        name: `portraits` to train and swap with, `judge` only to score with: its recogniser shares neither network,
            nor people, nor embedding length with the first, its landmark network neither widths nor weights, though
            both learnt from the same scenes; nothing is ever trained against either.
    """
    return str(Path(__file__).parent / "packs" / name)


def shipped_generator() -> str:
    """Checkpoint of the tiny preset, trained on procedural portraits against the `portraits` pack (docs/train.md)."""
    return str(Path(__file__).parent / "tiny.safetensors")
