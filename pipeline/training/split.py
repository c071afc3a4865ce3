"""Who is trained on and who is kept for looking."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ValidationConfig
from pipeline.errors import DatasetError

_LARGEST_PART = 4  # at most a quarter of the identities
_FEWEST = 4  # identities that can be split: two to train on, and some to look at


def split_identities(names: Sequence[str], settings: ValidationConfig) -> NDArray[np.bool_]:
    """Which identities are held out, by a digest of the name alone: adding people moves few others.

    Args:
        names: [P] of the identities.
        settings: how many.

    Returns:
        [P] true for those held out: `settings.identities` of them, at most a quarter of all.

    Raises:
        DatasetError: too few identities to train on some and look at others.
    """
    if len(names) < _FEWEST:
        people = "one identity: nobody to swap with" if len(names) == 1 else f"{len(names)} identities"
        raise DatasetError("training set", f"holds {people}", f"Prepare photographs of {_FEWEST} people or more")
    count = min(settings.identities, len(names) // _LARGEST_PART)
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    held_out = np.zeros(len(names), np.bool_)
    held_out[sorted(range(len(names)), key=digests.__getitem__)[:count]] = True
    return held_out
