"""Under which conditions figures were measured: only those of one protocol may be compared.

Published figures of one model differ by several points, because gallery, pairs and recogniser differ. Here they have a
digest that every result carries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.evaluation.cast import CASTING

_METRICS = 1
"""Of `Validator`; one more whenever a figure comes to mean something else."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """All that decides figures except the generator.

    Attributes:
        data_digest: of the prepared set: photographs, alignment, recogniser of the sources.
        crop_size: side of the crops in pixels.
        people: who is swapped and makes the gallery.
        pairs: how many (target, source) pairs are drawn of them.
        judge_digest: sha256 of the recogniser that says who is who.
        finder_digests: sha256 of each of the networks that find the landmarks.
    """

    data_digest: str
    crop_size: int
    people: tuple[str, ...]
    pairs: int
    judge_digest: str
    finder_digests: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hex; equal for equal conditions."""
        facts = {**asdict(self), "casting": CASTING, "metrics": _METRICS}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def differences(
    figures: Mapping[str, float], protocol: str, baseline: Mapping[str, Any], name: str
) -> dict[str, float]:
    """Figures less those of a baseline, where both have them.

    Args:
        figures: by name.
        protocol: digest of how they were measured.
        baseline: what `evaluation.json` holds.
        name: of the baseline, for the error.

    Raises:
        ConfigError: the baseline was measured otherwise.
    """
    if baseline.get("protocol_digest") != protocol:
        problem = "was measured by another protocol: other pairs, people, photographs or judge"
        raise ConfigError(name, problem, "Evaluate its generator with the same data, judge, held_out and pairs")
    return {k: round(v - baseline["figures"][k], 6) for k, v in figures.items() if k in baseline["figures"]}
