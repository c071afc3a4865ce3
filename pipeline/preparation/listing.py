"""What there is to prepare: photographs with their labels, in an order that mixes identities, cut into blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.config import PrepareConfig
from pipeline.errors import ConfigError
from pipeline.media.inputs import IMAGE_SUFFIXES, InputFile, list_inputs
from pipeline.preparation.labels import read_labels

MISSING = "the table names it, and it is not below inputs"


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph, and who is in it.

    Attributes:
        file: below the inputs.
        identity: as labelled; empty where nothing says so.
    """

    file: InputFile
    identity: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All photographs of a job.

    Attributes:
        photos: in the order in which they are prepared.
        others: files that are not named like an image, left alone.
    """

    photos: list[Photo]
    others: int


@dataclass(frozen=True, slots=True)
class Block:
    """The photographs of one shard.

    Attributes:
        number: of the shard.
        photos: in its order.
        digest: sha256 over recipe, photographs as they are now, and labels, hex: a shard that has it need not be
            made again.
    """

    number: int
    photos: tuple[Photo, ...]
    digest: str


def list_photos(settings: PrepareConfig) -> Listing:
    """All photographs below the inputs, with their labels.

    Raises:
        ConfigError: no folder, no photographs, or a table that does not fit them.
    """
    files, others = [], 0
    for file in list_inputs(settings.inputs, settings.storage):
        if PurePosixPath(file.item).suffix.lower() in IMAGE_SUFFIXES:
            files.append(file)
        else:
            others += 1
    if not files:
        raise ConfigError(settings.inputs, "holds no photographs", "Give a folder of jpg, png or webp files")
    photos = list(_labelled(settings, files))
    photos.sort(key=lambda photo: hashlib.sha256(f"{settings.seed}\0{photo.file.item}".encode()).digest())
    return Listing(photos, others)


def cut_blocks(photos: Sequence[Photo], photos_per_shard: int, recipe: str) -> list[Block]:
    """Blocks of equal length, none longer than `photos_per_shard`.

    Args:
        photos: in their order.
        photos_per_shard: the most of one block.
        recipe: digest of all that decides what a shard holds besides the photographs.
    """
    count = -(-len(photos) // photos_per_shard)
    ends = [len(photos) * number // count for number in range(count + 1)]
    return [_block(number, photos[ends[number] : ends[number + 1]], recipe) for number in range(count)]


def _block(number: int, photos: Sequence[Photo], recipe: str) -> Block:
    digest = hashlib.sha256(recipe.encode())
    for photo in photos:
        file = photo.file
        digest.update(f"\n{file.item}\0{file.size_bytes}\0{file.mtime_ns}\0{photo.identity}".encode())
    return Block(number, tuple(photos), digest.hexdigest())


def _labelled(settings: PrepareConfig, files: Sequence[InputFile]) -> Iterator[Photo]:
    if settings.table is not None:
        return _by_table(settings, settings.table, files)
    label = _folder if settings.labels == "folders" else _nothing
    return (Photo(file, label(file.item, settings.person)) for file in files)


def _folder(item: str, person: str) -> str:
    folders = item.split("/")[:-1]
    return "/".join(folders if person == "nearest" else folders[:1])


def _nothing(item: str, person: str) -> str:
    return ""


def _by_table(settings: PrepareConfig, table: str, files: Sequence[InputFile]) -> Iterator[Photo]:
    labels = read_labels(table)
    there = {file.item for file in files}
    if not there & labels.keys():
        problem = f"names {len(labels)} photographs ({next(iter(labels))}, …), none of them below {settings.inputs}"
        raise ConfigError(table, problem, f"There are {files[0].item}, …: set inputs to the folder the paths start at")
    for file in files:
        yield Photo(file, labels.get(file.item, ""))
    for item in labels.keys() - there:
        yield Photo(InputFile(item, 0, 0, MISSING), labels[item])
