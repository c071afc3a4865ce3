"""Samples come out whole or not at all: what that means for several images of one sample."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.media.shards.shard import ShardItem
from pipeline.media.shards.tar_members import SECOND
from pipeline.swapping.shards.record import INCOMPLETE


def whole_samples(items: Sequence[ShardItem], found: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """Which samples cannot be in the result, and what that makes of their other images.

    Args:
        items: of a shard.
        found: the receipts of them, in the same order.

    Returns:
        The receipts, in which an image that was done ends as `incomplete_sample` where another one of its sample
        ended otherwise; the keys of all samples that have to go, with the sentence why.
    """
    statuses, details = (found.column(name).to_pylist() for name in ("status", "detail"))
    ended = {}
    for item, status, detail in zip(items, statuses, details, strict=True):
        # A second member of a name is left out by itself: the first one stands for both.
        if status != "done" and item.problem != SECOND and (item.key not in ended or status == "failed"):
            ended[item.key] = (status, detail)
    spoilt = [n for n, item in enumerate(items) if statuses[n] == "done" and item.key in ended]
    if spoilt:
        rows = found.to_pylist()
        for number in spoilt:
            rows[number] |= _left_out(rows[number], *ended[items[number].key])
        found = pa.Table.from_pylist(rows, schema=found.schema)
    return found, {key: detail for key, (_, detail) in ended.items()}


def _left_out(row: dict[str, object], status: str, detail: str) -> dict[str, object]:
    sentence = f"{row['item']}: left out with its sample. {detail}"
    ended = {"status": status, "reason": INCOMPLETE, "detail": sentence, "output": "", "output_sha256": ""}
    faces: list[dict[str, object]] = row["faces"]  # type: ignore[assignment]
    return ended | {"faces": [face | {"action": "none", "source": ""} for face in faces]}
