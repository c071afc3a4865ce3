from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.media.store import Store
from pipeline.swapping.receipts import ReceiptBook
from pipeline.types import FaceReceipt, Receipt


def receipt(item: str, recipe: str = "r", at: float = 1.0, status: str = "done") -> Receipt:
    face = FaceReceipt((1, 2, 3, 4), 0.9, "swapped", "a", 0.1, 0.7, None)
    return Receipt(item, status, "", "", item, 10, 20, "in", "out", 640, 480, recipe, (face,), 0.1, 0.2, 0.3, at)


def test_one_row_for_every_input_with_its_faces(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("b"), receipt("a")])
    book.add([receipt("c")])
    table = book.close("r", {"a", "b", "c"})
    assert table.column("item").to_pylist() == ["a", "b", "c"]
    assert table.column("faces").to_pylist()[0][0]["owner_cosine_after"] is None
    assert sorted(p.name for p in (tmp_path / "_simswap").iterdir()) == ["receipts.parquet"]
    assert book.read("r").equals(table)


def test_the_latest_receipt_of_an_input_counts(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("a", at=1.0, status="failed"), receipt("b")])
    book.close("r", {"a", "b", "c"})
    book.add([receipt("a", at=2.0)])
    assert book.read("r").column("status").to_pylist() == ["done", "done"]
    assert book.close("r", {"a", "b", "c"}).num_rows == 2


def test_the_same_batch_again_leaves_one_part(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("a")])
    book.add([receipt("a", at=3.0)])
    assert len(list(((tmp_path / "_simswap") / "receipts").iterdir())) == 1


def test_receipts_of_another_recipe_do_not_count(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("a", recipe="old")])
    assert book.read("new").num_rows == 0
    assert book.read().num_rows == 1


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("a")])
    part = next(((tmp_path / "_simswap") / "receipts").iterdir())
    part.write_bytes(b"torn")
    with pytest.raises(OutputError, match=f"{part.name}: is damaged"):
        book.read()


def test_of_inputs_that_are_gone_only_those_with_a_result_stay(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("a"), receipt("gone"), receipt("bad", status="failed")])
    table = book.close("r", {"a"})
    assert table.column("item").to_pylist() == ["a"]
    assert book.read("r").column("item").to_pylist() == ["a", "gone"]


def test_a_leftover_of_a_killed_writer_does_not_disturb(tmp_path: Path) -> None:
    book = ReceiptBook(Store(str(tmp_path)))
    book.add([receipt("a")])
    ((tmp_path / "_simswap") / "receipts" / ".1234.partial").write_bytes(b"half a part")
    assert book.close("r", {"a"}).num_rows == 1
