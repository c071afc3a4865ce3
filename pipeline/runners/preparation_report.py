"""What people look at after a preparation: counts, histograms of what was measured, the contact sheet, one page."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import PrepareConfig
from pipeline.media.local_files import write_atomically
from pipeline.preparation.assembly import Gathered
from pipeline.preparation.people import People
from pipeline.runners.page import encode_jpeg, html_page, html_picture, html_table, side_by_side
from pipeline.runners.preparation_sheet import contact_sheet
from pipeline.types import Floats

mpl.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MEASURED = {
    "face_px": "shorter side of the face, px",
    "score": "detection score",
    "sharpness": "sharpness",
    "yaw": "yaw, degrees",
    "pitch": "pitch, degrees",
    "cosine": "cosine to the person's other photographs",
}
"""Column of the photographs -> what people call it."""

_LONG_TAILS = ("face_px", "sharpness")
"""Whose few largest values are shown together in the last bar."""

_GROUPS = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None))
"""Faces of a person, from and to, that are counted together."""


def summarise(photos: pa.Table, people: People, settings: PrepareConfig) -> dict[str, Any]:
    """Counts of photographs, reasons and people; for clustering its threshold and the sizes it found."""
    statuses = Counter(photos.column("status").to_pylist())
    reasons = Counter(reason for reason in photos.column("reason").to_pylist() if reason)
    counts = people.counts()[people.counts() > 0]
    summary: dict[str, Any] = {
        "photos": {"total": photos.num_rows, "kept": statuses["kept"], "dropped": statuses["dropped"]},
        "reasons": dict(reasons.most_common()),
        "faces": int(people.kept.sum()),
        "identities": len(counts),
        "faces_per_identity": {
            name: int(np.quantile(counts, q)) if len(counts) else 0
            for name, q in (("least", 0), ("median", 0.5), ("most", 1))
        },
        "photos_per_s": round(photos.num_rows / max(pc.sum(photos.column("seconds")).as_py() or 0.0, 1e-9), 3),
    }
    if settings.labels == "cluster":
        sizes = np.bincount(people.identity, minlength=len(people.names))
        found = {"min_cosine": settings.cluster.min_cosine, "found": len(sizes), "sizes": _grouped(sizes)}
        summary["clusters"] = found
    return summary


def prepared_metrics(photos: pa.Table, summary: Mapping[str, Any]) -> dict[str, float]:
    """The summary and the medians and quartiles of what was measured, as metrics."""
    metrics = {f"photos/{name}": float(value) for name, value in summary["photos"].items()}
    metrics |= {f"reasons/{name}": float(value) for name, value in summary["reasons"].items()}
    metrics |= {name: float(summary[name]) for name in ("faces", "identities", "photos_per_s")}
    metrics |= {f"faces_per_identity/{name}": float(value) for name, value in summary["faces_per_identity"].items()}
    if "clusters" in summary:
        metrics["clusters/found"] = float(summary["clusters"]["found"])
    kept = photos.filter(pc.field("status") == "kept")
    for name in _MEASURED:
        values = _values(kept, name)
        if len(values):
            for label, q in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
                metrics[f"kept/{name}/{label}"] = float(np.quantile(values, q))
    return metrics


def write_preparation_report(
    settings: PrepareConfig,
    folder: Path,
    gathered: Gathered,
    people: People,
    photos: pa.Table,
    summary: Mapping[str, Any],
) -> list[Path]:
    """Write the contact sheet, the histograms and the page.

    Args:
        settings: of the job.
        folder: where to.
        gathered: its faces.
        people: whose they are.
        photos: what became of every photograph.
        summary: as `summarise` gives it.

    Returns:
        The files written, each whole.
    """
    files = {"measured.png": _histograms(settings, photos, people)}
    sheet = contact_sheet(settings, gathered, people, photos)
    if sheet is not None:
        files["contact_sheet.jpg"] = encode_jpeg(sheet)
    files["report.html"] = _page(settings, photos, summary, files).encode()
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]


def _histograms(settings: PrepareConfig, photos: pa.Table, people: People) -> bytes:
    """What was measured of kept and dropped photographs, with the filters' limits, in one PNG."""
    filters = settings.filters
    limits = {
        "face_px": (filters.min_face_px,),
        "score": (filters.min_score,),
        "sharpness": (filters.min_sharpness,),
        "yaw": (-filters.max_yaw, filters.max_yaw),
        "pitch": (-filters.max_pitch, filters.max_pitch),
        "cosine": () if settings.labels == "cluster" else (filters.outlier_cosine,),
    }
    figure = Figure(figsize=(13, 6), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for place, (name, title) in zip(axes, _MEASURED.items(), strict=False):
        _histogram(place, photos, name, title, limits[name])
    counts = people.counts()[people.counts() > 0]
    axes[6].bar(range(len(_GROUPS)), _grouped(counts).values(), color="#2a7f8e")
    axes[6].set_xticks(range(len(_GROUPS)), _grouped(counts), rotation=45)
    axes[6].set_xlabel("faces of a person")
    axes[6].set_ylabel("people")
    axes[7].set_axis_off()
    axes[7].legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _histogram(place: Axes, photos: pa.Table, name: str, title: str, limits: tuple[float, ...]) -> None:
    values = [_values(photos.filter(pc.field("status") == status), name) for status in ("kept", "dropped")]
    everything = np.concatenate(values)
    if len(everything):
        low, high = np.quantile(everything, (0.0, 0.995 if name in _LONG_TAILS else 1.0))
        bins = np.linspace(low, max(high, low + 1e-3), 41).tolist()
        clipped = [np.clip(part, low, bins[-1]) for part in values]
        place.hist(clipped, bins=bins, stacked=True, color=["#2a7f8e", "#e07b39"], label=["kept", "left out"])
    for limit in limits:
        place.axvline(limit, color="#444", linestyle="--", linewidth=1, label="limit" if limit == limits[0] else None)
    place.set_xlabel(title)
    place.set_ylabel("photographs")


def _values(photos: pa.Table, name: str) -> Floats:
    return np.asarray(photos.column(name).drop_null().to_numpy(), np.float32)


def _grouped(counts: Any) -> dict[str, int]:
    """How many of the counts lie in each of `_GROUPS`."""
    named = {}
    for low, high in _GROUPS:
        name = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        named[name] = int(((counts >= low) & (counts <= (high or np.inf))).sum())
    return named


def _page(settings: PrepareConfig, photos: pa.Table, summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """One HTML file with everything inside it."""
    people = {"identities": summary["identities"], "faces": summary["faces"]}
    people |= {f"{name} faces of one": value for name, value in summary["faces_per_identity"].items()}
    tables = [html_table(("", "photographs"), summary["photos"].items()), html_table(("", "set"), people.items())]
    if summary["reasons"]:
        tables.append(html_table(("left out because", "photographs"), summary["reasons"].items()))
    if "clusters" in summary:
        found = summary["clusters"]
        title = f"people found at cosine {found['min_cosine']:g}"
        tables.append(html_table(("faces", title), found["sizes"].items()))
    parts = [side_by_side(*tables)]
    for name, title in (("contact_sheet.jpg", "People"), ("measured.png", "Measured")):
        if name in pictures:
            parts.append(html_picture(title, name, pictures[name]))
    dropped = photos.filter(pc.field("status") == "dropped").slice(0, 200).select(["path", "reason", "detail"])
    if dropped.num_rows:
        parts.append("<h2>Left out (first 200)</h2>")
        parts.append(html_table(("photograph", "reason", "why"), [tuple(row.values()) for row in dropped.to_pylist()]))
    crops = f"{settings.crop_size} px {settings.template} crops, labels: {settings.labels}"
    says = f"{settings.inputs} \N{RIGHTWARDS ARROW} {settings.output}, {crops}, {time.strftime('%Y-%m-%d %H:%M')}"
    return html_page("simswap prepare", says, parts)
