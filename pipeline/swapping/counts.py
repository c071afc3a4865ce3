"""What receipts say in all: counts and seconds, of one shard or of a whole job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_STAGES = ("analyse", "swap", "finish")

Counts = dict[str, dict[str, float]]
"""statuses, reasons and face actions with how often they are there, and the stages' seconds."""


def count(receipts: pa.Table) -> Counts:
    """Count receipts."""
    faces = pc.list_flatten(receipts.column("faces"))
    actions = pc.struct_field(faces, "action") if len(faces) else pa.array([], pa.string())
    reasons = _counted(receipts.column("reason"))
    reasons.pop("", None)
    seconds = {name: float(pc.sum(receipts.column(f"{name}_s")).as_py() or 0.0) for name in _STAGES}
    return {
        "statuses": _counted(receipts.column("status")),
        "reasons": reasons,
        "actions": _counted(actions),
        "seconds": seconds,
    }


def total(counts: Iterable[Mapping[str, Mapping[str, float]]]) -> Counts:
    """The sum of several counts."""
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("statuses", "reasons", "actions", "seconds")}
    for one in counts:
        for name, values in one.items():
            for key, value in values.items():
                sums[name][key] += value  # type: ignore[assignment]
    return {name: dict(values) for name, values in sums.items()}


def summarise(counts: Counts) -> dict[str, Any]:
    """Counts as people read them: inputs, reasons by how often, faces, and faces per second of one worker."""
    statuses, actions, seconds = counts["statuses"], counts["actions"], counts["seconds"]
    found, swapped = sum(actions.values()), actions.get("swapped", 0)
    per_stage = {"analyse": found, "swap": swapped, "finish": swapped}
    kinds = {status: int(statuses.get(status, 0)) for status in ("done", "skipped", "failed")}
    reasons = sorted(counts["reasons"].items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "items": {"total": int(sum(statuses.values())), **kinds},
        "reasons": {reason: int(number) for reason, number in reasons},
        "faces": {"found": int(found), **{a: int(actions.get(a, 0)) for a in ("swapped", "blurred", "kept")}},
        "faces_per_s": {k: round(per_stage[k] / seconds[k], 3) for k in _STAGES if seconds.get(k, 0.0) > 0},
    }


def _counted(column: pa.ChunkedArray) -> dict[str, float]:
    return {str(pair["values"]): pair["counts"] for pair in pc.value_counts(column).to_pylist()}
