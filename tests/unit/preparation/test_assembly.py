from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import OutputError
from pipeline.preparation.assembly import gather
from pipeline.preparation.dataset import SHARD_COLUMNS, FaceDataset
from pipeline.preparation.listing import cut_blocks
from pipeline.preparation.shards import BLOCK_KEY, clear_outdated, is_done
from tests.prepared_sets import make_photos, make_set, settings_of


def test_what_is_written_is_what_training_reads(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    make_set(settings, make_photos(tmp_path))
    dataset = FaceDataset(settings.output)
    assert (len(dataset), dataset.names) == (11, ("p0", "p1", "p2"))
    assert np.bincount(dataset.identity).tolist() == [3, 4, 4]
    assert np.linalg.norm(dataset.embeddings, axis=1) == pytest.approx(np.ones(11), abs=1e-5)
    assert (np.diff(dataset.shard) >= 0).all()
    everybody = np.arange(len(dataset))
    assert dataset.crops(everybody).shape == (11, 3, 64, 64)
    rows = dataset.rows(everybody, SHARD_COLUMNS.names).to_pylist()
    for row, vector, identity in zip(rows, dataset.embeddings, dataset.identity, strict=True):
        assert row["identity"] == dataset.names[identity] == row["source_path"].split("/")[0]
        assert np.allclose(row["embedding"], vector)
        assert len(row["landmarks"]) == 10
        assert len(row["source_sha256"]) == 64


def test_every_photograph_is_accounted_for(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    _, _, _, photos = make_set(settings, make_photos(tmp_path))
    rows = {row["path"]: row for row in photos.to_pylist()}
    assert list(rows) == sorted(str(p.relative_to(tmp_path / "in")) for p in (tmp_path / "in").rglob("*.png"))
    reasons = {path: row["reason"] for path, row in rows.items() if row["status"] == "dropped"}
    assert reasons == {"p0/3.png": "outlier", "p0/broken.png": "unreadable"}
    assert rows["p0/3.png"]["faces_kept"] == 0
    assert "to the mean of its identity's other photographs, the least is 0.2" in rows["p0/3.png"]["detail"]
    assert all(row["faces_kept"] == 1 for path, row in rows.items() if path not in reasons)
    assert rows["p1/0.png"]["cosine"] > 0.9
    assert rows["p0/broken.png"]["sharpness"] is None


def test_clustering_finds_the_folders_again(tmp_path: Path) -> None:
    scenes = make_photos(tmp_path)
    settings = settings_of(tmp_path, labels="cluster")
    make_set(settings, scenes)
    dataset = FaceDataset(settings.output)
    paths = dataset.rows(np.arange(len(dataset)), ["source_path", "identity"]).to_pydict()
    assert set(paths["identity"]) == {None}
    found = dict(zip(paths["source_path"], dataset.identity.tolist(), strict=True))
    assert dataset.names == ("person-00000", "person-00001", "person-00002")
    assert {found[f"p1/{n}.png"] for n in range(4)} | {found["p0/3.png"]} == {0}, "five photographs: the most"
    assert len({found[f"p0/{n}.png"] for n in range(3)}) == len({found[f"p2/{n}.png"] for n in range(4)}) == 1


def test_a_block_is_done_when_both_its_files_are_of_its_digest(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    blocks, *_ = make_set(settings, make_photos(tmp_path))
    assert len(blocks) == 3
    assert all(is_done(settings.output, block) for block in blocks)
    other = cut_blocks([photo for block in blocks for photo in block.photos], 5, "another recipe")
    assert not any(is_done(settings.output, block) for block in other)
    (tmp_path / "out/_simswap/receipts/00001.parquet").unlink()
    (tmp_path / "out/shards/00002.parquet").write_bytes(b"half")
    assert [is_done(settings.output, block) for block in blocks] == [True, False, False]
    clear_outdated(settings.output, blocks[:1])
    assert [p.name for p in (tmp_path / "out").rglob("0*.parquet")] == ["00000.parquet"] * 2


def test_a_shard_that_is_not_what_its_receipts_say_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    blocks, *_ = make_set(settings, make_photos(tmp_path))
    path = tmp_path / "out/shards/00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1).replace_schema_metadata({BLOCK_KEY: blocks[1].digest}), path)
    with pytest.raises(OutputError, match=r"holds \d faces, its receipts say \d"):
        gather(settings.output, blocks)


def test_no_face_at_all_is_a_set_of_nobody(tmp_path: Path) -> None:
    make_photos(tmp_path)
    settings = settings_of(tmp_path)
    _, gathered, people, photos = make_set(settings, [])
    assert (len(people.kept), gathered.embeddings.shape) == (0, (0, 0))
    assert set(photos.column("reason").to_pylist()) == {"no_face", "unreadable"}
