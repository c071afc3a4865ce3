from __future__ import annotations

from pipeline.runners.training import doubt


def test_a_generator_that_copies_its_targets_is_told_of() -> None:
    assert "nothing is swapped" in (doubt({"validation/changed": 0.001, "validation/self_psnr_db": 60.0}) or "")
    assert doubt({"validation/changed": 0.05}) is None
    assert doubt({}) is None, "no validation says nothing"
