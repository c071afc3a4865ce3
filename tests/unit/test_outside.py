"""The outside checker's memory: what was done again, and what had been taken away to be done again."""

from __future__ import annotations

from pathlib import Path

from pipeline.media.store import Store
from pipeline.swapping.receipts import ReceiptBook
from pipeline.types import Receipt
from tests.outside import History


def receipt(item: str, at: float) -> Receipt:
    return Receipt(item, "done", "", "", item, 1, 1, "", "", 1, 1, "r", (), 0.1, 0.1, 0.1, at)


def test_only_what_nobody_took_away_counts_as_done_again(tmp_path: Path) -> None:
    book, history = ReceiptBook(Store(str(tmp_path))), History(str(tmp_path))
    book.add([receipt("a", 1.0), receipt("b", 1.0), receipt("c", 1.0)])
    assert history.note() == 3
    history.forget("a/")
    assert history.note() == 2, "the receipt of before is still there, and tells nothing"
    book.add([receipt("a", 2.0), receipt("b", 2.0)])
    assert history.note() == 3
    assert history.done_again == {"b"}
    book.add([receipt("a", 3.0)])
    history.note()
    assert history.done_again == {"a", "b"}
