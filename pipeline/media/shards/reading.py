"""Reading images out of shards that lie in a store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from pipeline.config import ShardsConfig
from pipeline.errors import UnreadableError
from pipeline.media.shards.parquet_shards import ParquetShard
from pipeline.media.shards.shard import ShardItem
from pipeline.media.shards.tars import index_tar
from pipeline.media.store import Store

_OPEN_SHARDS = 4
_GAP_BYTES = 64 * 1024
_RANGE_BYTES = 16 * 1024 * 1024


class Place(NamedTuple):
    """Where the bytes of an image are.

    Attributes:
        shard: name in the store.
        offset: tar: of the first byte; Parquet: number of the row.
        size_bytes: of the image.
    """

    shard: str
    offset: int
    size_bytes: int


def is_tar(shard: str) -> bool:
    """Whether a shard is a tar; else it is Parquet."""
    return shard.endswith(".tar")


class ShardReader:
    """Reads shards of a store; a few stay open.

    Args:
        store: that holds them.
        settings: which members are images.
        concurrency: requests at the same time.
    """

    def __init__(self, store: Store, settings: ShardsConfig, concurrency: int) -> None:
        self._store, self._settings, self._concurrency = store, settings, concurrency
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[Place, tuple[int, Future[bytes]]] = {}

    def items(self, shard: str) -> list[ShardItem]:
        """The images and videos of a shard.

        Raises:
            ItemError: it is damaged, or no shard.
            StoreError: the store does not answer, or refuses.
            FileNotFoundError: it has gone.
        """
        return self._store.tried(shard, lambda: self._listed(shard))

    def _listed(self, shard: str) -> list[ShardItem]:
        uri = f"{self._store.address}/{shard}"
        with self._store.open(shard) as file:
            if is_tar(shard):
                return index_tar(file, uri, (*self._settings.images, *self._settings.videos))
            return list(self._parquet(file, uri).items())

    def ahead(self, places: Sequence[Place]) -> None:
        """Begin to fetch images of tars that are read next, neighbours in one request."""
        self._coming = {}
        if self._store.local is not None:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._concurrency)
        run: list[Place] = []
        for place in sorted(place for place in places if is_tar(place.shard)):
            if run and not _adjoins(run, place):
                self._fetch(run)
                run = []
            run.append(place)
        self._fetch(run)

    def read(self, place: Place) -> bytes:
        """The bytes of an image.

        Raises:
            ItemError: damaged, or the row holds no image.
            StoreError: the store does not answer, or refuses.
            FileNotFoundError: the shard has gone.
        """
        if not is_tar(place.shard):
            return bytes(self._opened(place.shard).read(place.offset))
        start, coming = self._coming.pop(place, (place.offset, None))
        data = self._range(place.shard, place.offset, place.size_bytes) if coming is None else coming.result()
        data = data[place.offset - start : place.offset - start + place.size_bytes]
        if len(data) < place.size_bytes:
            raise UnreadableError(f"{self._store.address}/{place.shard}", "is shorter than it was", "Run again")
        return data

    def _fetch(self, run: Sequence[Place]) -> None:
        if run and self._pool is not None:
            start, end = run[0].offset, max(place.offset + place.size_bytes for place in run)
            coming = self._pool.submit(self._range, run[0].shard, start, end - start)
            self._coming |= dict.fromkeys(run, (start, coming))

    def _range(self, shard: str, offset: int, size: int) -> bytes:
        piece, length = self._opened(shard)
        return bytes(piece(offset, max(min(size, length - offset), 0)))

    def _opened(self, shard: str) -> Any:
        """What reads a tar by offset and size, and its length; or a reader of a Parquet shard."""
        if shard not in self._open:
            uri = f"{self._store.address}/{shard}"
            read = self._store.pieces(shard) if is_tar(shard) else self._parquet(self._store.open(shard), uri)
            self._open[shard] = read
            while len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _parquet(self, file: Any, uri: str) -> ParquetShard:
        return ParquetShard(file, uri, self._settings.image_column, self._settings.key_column)


def _adjoins(run: Sequence[Place], place: Place) -> bool:
    """Whether an image may be read together with those before it."""
    end = max(one.offset + one.size_bytes for one in run)
    small = place.offset + place.size_bytes - run[0].offset <= _RANGE_BYTES
    return run[0].shard == place.shard and place.offset - end <= _GAP_BYTES and small
