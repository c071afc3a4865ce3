"""Sources: who the faces become, from photographs or from a table of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ImagesConfig
from pipeline.errors import ConfigError, ItemError
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.identity import OUTLIER_COSINE, average_identity
from pipeline.media.copies import local_copy
from pipeline.media.images import read_image
from pipeline.media.inputs import IMAGE_SUFFIXES
from pipeline.media.video import is_video
from pipeline.media.video_decoding import spread_frames
from pipeline.types import Floats, Identity

Warn = Callable[[str], None]

_FRAMES = 8
"""Frames of a video that say whom it shows."""


def load_sources(source: str, analyser: FaceAnalyser | None, images: ImagesConfig, warn: Warn) -> list[Identity]:
    """The identities that a `source` setting names.

    Args:
        source: a photograph, a folder of one person's photographs, a folder of such folders, or a Parquet
            table of (name, embedding[, consent]); a path or an address.
        analyser: finds and embeds the faces of photographs; may be None for a table.
        images: limits for reading the photographs.
        warn: told about outliers, photographs without a face, and photographs with several.

    Raises:
        ConfigError: nothing there, no face in any photograph, or photographs without a model pack.
    """
    if source.endswith(".parquet"):
        return read_identities(source)
    if analyser is None:
        raise ConfigError(
            source, "photographs need a model pack to find the face", "Set models, or give a Parquet table"
        )
    path = Path(local_copy(source))
    if path.is_dir():
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        if folders and _photos(path):
            warn(f"{source}: has folders of people, so the {len(_photos(path))} photographs beside them are left out")
        if folders:
            return [_identity(folder.name, _photos(folder), analyser, images, warn) for folder in folders]
        return [_identity(path.name, _photos(path), analyser, images, warn)]
    if not path.is_file():
        raise ConfigError(source, "no such photograph or folder", "Set source to a photograph of who the faces become")
    return [_identity(path.stem, [path], analyser, images, warn)]


def read_identities(path: str) -> list[Identity]:
    """Identities of a Parquet table with the columns `name`, `embedding` and, where known, `consent`.

    Raises:
        ConfigError: missing, not such a table, or an embedding of no length.
    """
    try:
        rows = pq.read_table(local_copy(path)).to_pylist()
        found = [(str(row["name"]), np.asarray(row["embedding"], np.float32), row.get("consent") or "") for row in rows]
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise ConfigError(path, f"cannot be read as a table of name and embedding ({error})") from error
    sizes = {embedding.shape for _, embedding, _ in found}
    if len(sizes) != 1 or not all(np.isfinite(e).all() and np.linalg.norm(e) > 0 for _, e, _ in found):
        raise ConfigError(path, "needs one or more embeddings, all of one length and none of them zero")
    return [Identity(name, e / np.linalg.norm(e), consent) for name, e, consent in found]


def identities_table(identities: Sequence[Identity]) -> pa.Table:
    """The table that `read_identities` reads."""
    return pa.table(
        {
            "name": [identity.name for identity in identities],
            "embedding": pa.array([i.embedding for i in identities], pa.list_(pa.float32())),
            "consent": [identity.consent for identity in identities],
        }
    )


def embed_person(path: str, analyser: FaceAnalyser, images: ImagesConfig, warn: Warn) -> Identity:
    """One person from a photograph or a folder of photographs.

    Raises:
        ConfigError: nothing there, or no face in any photograph.
    """
    place = Path(local_copy(path))
    if not place.exists():
        raise ConfigError(path, "no such photograph or folder")
    return _identity(place.stem, _photos(place) if place.is_dir() else [place], analyser, images, warn)


def load_named(
    source: str, names: Sequence[str], analyser: FaceAnalyser | None, images: ImagesConfig, warn: Warn
) -> Iterator[Identity]:
    """The identities that a table of pairs names.

    Args:
        source: a Parquet table of (name, embedding), or a folder.
        names: rows of that table; or photographs, videos and folders of photographs below that folder.
        analyser: finds and embeds faces; may be None for a table.
        images: limits for reading photographs.
        warn: as `load_sources`.

    Raises:
        ConfigError: one is not there, or shows no face.
    """
    if source.endswith(".parquet"):
        known = {identity.name: identity for identity in read_identities(source)}
        missing = [name for name in names if name not in known]
        if missing:
            raise ConfigError(
                source, f"has no source {', '.join(missing[:10])}", "Add them, or mend the table of pairs"
            )
        yield from (known[name] for name in names)
        return
    if analyser is None:
        mend = "Set models, or give a Parquet table"
        raise ConfigError(source, "photographs and videos need a model pack to find the face", mend)
    for name in names:
        path = Path(local_copy(f"{source.rstrip('/')}/{name}"))
        if is_video(name) and path.is_file():
            yield _filmed(name, path, analyser, warn)
        else:
            yield replace(embed_person(str(path), analyser, images, warn), name=name)


def _filmed(name: str, path: Path, analyser: FaceAnalyser, warn: Warn) -> Identity:
    """A person by the largest face in some frames of a video."""
    embeddings, labels = list[Floats](), list[str]()
    try:
        for seconds, frame in spread_frames(str(path), str(path), _FRAMES):
            faces, _ = analyser(frame)
            if len(faces):
                area = np.prod(faces.box[:, 2:] - faces.box[:, :2], axis=1)
                embeddings.append(faces.embedding[int(area.argmax())])
                labels.append(f"{seconds:.2f} s")
    except ItemError as error:
        raise ConfigError(f"source {name}", error.problem, error.mend) from error
    if not embeddings:
        raise ConfigError(f"source {name}", f"shows no face in {_FRAMES} frames", "Give a clear video of one person")
    identity = average_identity(name, labels, np.stack(embeddings))
    if identity.outliers:
        warn(f"source {name}: somebody else at {', '.join(identity.outliers)}; left out")
    return identity


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _identity(name: str, photos: Sequence[Path], analyser: FaceAnalyser, images: ImagesConfig, warn: Warn) -> Identity:
    names: list[str] = []
    embeddings: list[Floats] = []
    for photo in photos:
        try:
            faces, _ = analyser(read_image(photo.read_bytes(), str(photo), images).frame)
        except (ItemError, OSError) as error:
            warn(f"source {name}: left out {photo}: {error}")
            continue
        if not len(faces):
            warn(f"source {name}: {photo}: no face found; left out")
            continue
        if len(faces) > 1:
            warn(f"source {name}: {photo}: {len(faces)} faces; the largest was taken")
        area = np.prod(faces.box[:, 2:] - faces.box[:, :2], axis=1)
        names.append(photo.name)
        embeddings.append(faces.embedding[int(area.argmax())])
    if not names:
        where = str(photos[0]) if len(photos) == 1 else f"source {name}"
        raise ConfigError(where, "shows no face that could be found", "Give a clear photograph of one person")
    identity = average_identity(name, names, np.stack(embeddings))
    if len(names) == 2 and float(embeddings[0] @ embeddings[1]) < OUTLIER_COSINE:
        warn(f"source {name}: {names[0]} and {names[1]} do not look like one person; both were used")
    if identity.outliers:
        left_out = "" if set(identity.outliers) & set(identity.photos) else "; left out"
        warn(f"source {name}: does not look like the others: {', '.join(identity.outliers)}{left_out}")
    return identity
