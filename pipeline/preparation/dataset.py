"""A prepared training set on disk: shards of aligned crops, who is who, and everybody's embedding.

    FOLDER/shards/00000.parquet …   a row a face (`SHARD_COLUMNS`): crop, embedding, landmarks, measurements, source
    FOLDER/index.parquet            shard, row, identity of every sample that counts, ordered by shard and row
    FOLDER/embeddings.npy           [N, E] f32 in the order of the index, so that any photograph can be a source
    FOLDER/header.json              what it is and what made it; written last, so without it there is no set

FOLDER may be anything that pyarrow reads: a path, `s3://…`, `gs://…`. A sample's number is its place in the index.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow import fs
from torch import Tensor

from pipeline.config import Template
from pipeline.errors import DatasetError, StoreError
from pipeline.faces.alignment import apply, frame_to_crop
from pipeline.media.store import store_at
from pipeline.types import Floats, Ints

FORMAT = "simswap-ray-faces/1"

HEADER = "header.json"
INDEX = "index.parquet"
EMBEDDINGS = "embeddings.npy"

SHARD_COLUMNS = pa.schema(
    [
        pa.field("crop", pa.binary(), nullable=False),  # JPEG or PNG, [S, S] RGB
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),  # unit length
        pa.field("identity", pa.string()),  # as labelled; null where it is found by clustering
        pa.field("box", pa.list_(pa.float32())),  # 4, photograph pixels
        pa.field("landmarks", pa.list_(pa.float32())),  # 10: x, y of the five points, photograph pixels
        pa.field("score", pa.float32()),  # detection, 0..1
        pa.field("sharpness", pa.float32()),
        pa.field("yaw", pa.float32()),  # degrees, from the five points
        pa.field("pitch", pa.float32()),
        pa.field("roll", pa.float32()),
        pa.field("source_path", pa.string()),  # below the inputs
        pa.field("source_sha256", pa.string()),
    ]
)

INDEX_COLUMNS = pa.schema([("shard", pa.int32()), ("row", pa.int32()), ("identity", pa.string())])


@dataclass(frozen=True, slots=True)
class DatasetHeader:
    """What a prepared set is and what made it.

    Attributes:
        crop_size: side S of the crops in pixels.
        template: their alignment.
        encoder_name: the identity encoder whose embeddings it holds, for people.
        encoder_digest: sha256 of the encoder's file, hex.
        embedding_size: length E of the embeddings.
        samples: N faces.
        identities: how many people.
        digest: sha256 over the recipe and every photograph's digest, hex: the same set again has the same.
        recipe: digest of the settings and networks that decide what is in it.
    """

    crop_size: int
    template: Template
    encoder_name: str
    encoder_digest: str
    embedding_size: int
    samples: int
    identities: int
    digest: str
    recipe: str


class FaceDataset:
    """Reads a prepared set: identities and embeddings at once, crops shard by shard.

    Args:
        folder: of the set.
        cached_shards: shards whose crops are kept in memory, the latest used.

    Attributes:
        header: what the set is.
        names: [P] of the identities, sorted.
        identity: [N] index into `names` of every sample.
        shard: [N] number of the shard every sample is in.
        embeddings: [N, E] f32 unit length; memory-mapped where the set lies on this machine.

    Raises:
        DatasetError: no set there, or a damaged one.
    """

    def __init__(self, folder: str, cached_shards: int = 8) -> None:
        self.folder = folder
        store = store_at(folder)
        self._files, self._root = store.files, store.root
        self.header = read_dataset_header(folder)
        index = self._table(INDEX)
        names, identity = np.unique(np.asarray(index["identity"].to_pylist(), object), return_inverse=True)
        self.names = tuple(str(name) for name in names)
        self.identity: Ints = identity.astype(np.int64)
        self.shard: Ints = index["shard"].to_numpy().astype(np.int64)
        self._row: Ints = index["row"].to_numpy().astype(np.int64)
        self.embeddings = self._embeddings()
        if len(self.embeddings) != len(self.shard):
            raise DatasetError(folder, "its index and embeddings are not of one length", "Prepare it again")
        self._cached: OrderedDict[int, pa.Table] = OrderedDict()
        self._cached_shards = cached_shards

    def __len__(self) -> int:
        return len(self.shard)

    def crops(self, samples: Ints) -> Tensor:
        """Decoded crops of some samples: [K, 3, S, S] u8 RGB.

        Raises:
            DatasetError: a crop is damaged or of another size.
        """
        size = self.header.crop_size
        out = torch.empty((len(samples), 3, size, size), dtype=torch.uint8)
        for place, sample in enumerate(samples):
            data = self._shard(int(self.shard[sample]))["crop"][int(self._row[sample])].as_py()
            out[place] = self._decode(data, int(sample))
        return out

    def landmarks(self, samples: Ints) -> Floats:
        """Landmarks of some samples in the pixels of their crops: [K, 5, 2]."""
        found = [self._shard(int(self.shard[s]))["landmarks"][int(self._row[s])].as_py() for s in samples]
        photograph = np.array(found, np.float32).reshape(-1, 5, 2)
        return apply(frame_to_crop(photograph, self.header.template, self.header.crop_size), photograph)

    def rows(self, samples: Ints, columns: Sequence[str]) -> pa.Table:
        """Columns of `SHARD_COLUMNS` of some samples, in their order; for reports, not for training."""
        tables = {s: self._table(shard_name(s), columns) for s in sorted({int(self.shard[n]) for n in samples})}
        parts = [tables[int(self.shard[n])].slice(int(self._row[n]), 1) for n in samples]
        return pa.concat_tables(parts) if parts else pa.table({name: [] for name in columns})

    def _decode(self, data: bytes, sample: int) -> Tensor:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        size = self.header.crop_size
        if pixels is None or pixels.shape != (size, size, 3):
            where = f"{self.folder}/{shard_name(int(self.shard[sample]))}"
            raise DatasetError(where, f"row {self._row[sample]} is no crop of {size} px", "Prepare the set again")
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _shard(self, shard: int) -> pa.Table:
        if shard in self._cached:
            self._cached.move_to_end(shard)
            return self._cached[shard]
        while len(self._cached) >= self._cached_shards:
            self._cached.popitem(last=False)
        self._cached[shard] = self._table(shard_name(shard), ["crop", "landmarks"])
        return self._cached[shard]

    def _table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        try:
            return pq.read_table(f"{self._root}/{name}", columns=columns, filesystem=self._files)
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{self.folder}/{name}", f"cannot be read ({error})", "Prepare the set again") from error

    def _embeddings(self) -> Floats:
        try:
            if isinstance(self._files, fs.LocalFileSystem):
                mapped: Floats = np.load(f"{self._root}/{EMBEDDINGS}", mmap_mode="r", allow_pickle=False)
                return mapped
            with self._files.open_input_file(f"{self._root}/{EMBEDDINGS}") as file:
                whole: Floats = np.load(io.BytesIO(file.read()), allow_pickle=False)
            return whole
        except (OSError, ValueError) as error:
            where = f"{self.folder}/{EMBEDDINGS}"
            raise DatasetError(where, f"cannot be read ({error})", "Prepare the set again") from error


def read_dataset_header(folder: str) -> DatasetHeader:
    """What a prepared set says of itself.

    Raises:
        DatasetError: no set there, or one of another format.
    """
    store = store_at(folder)
    try:
        facts = json.loads(store.read(HEADER))
    except FileNotFoundError:
        raise DatasetError(folder, "no prepared set there", "Make one with simswap prepare, or let it finish") from None
    except (StoreError, ValueError) as error:
        raise DatasetError(f"{folder}/{HEADER}", f"cannot be read ({error})", "Prepare the set again") from error
    if facts.pop("format", None) != FORMAT:
        raise DatasetError(folder, f"not a prepared set of format {FORMAT}", "Prepare the set again")
    try:
        return DatasetHeader(**facts)
    except TypeError as error:
        raise DatasetError(f"{folder}/{HEADER}", f"is damaged ({error})", "Prepare the set again") from error


def header_json(header: DatasetHeader) -> bytes:
    """What `read_dataset_header` reads."""
    return json.dumps({"format": FORMAT, **asdict(header)}, indent=1).encode()


def shard_name(number: int) -> str:
    """Path of a shard below the set's folder."""
    return f"shards/{number:05d}.parquet"
