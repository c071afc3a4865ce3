from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.media.inputs import InputFile, list_inputs
from pipeline.runners.planning import plan_job
from pipeline.runners.wire import files_to_table, table_to_files, table_to_works, works_to_table
from pipeline.swapping import Analyse
from tests.factories import add_input, encode_png, no_faces, scene, small_job


def test_work_comes_back_from_its_rows(tmp_path: Path) -> None:
    settings = small_job(tmp_path, policy={"no_face": "copy"})
    add_input(tmp_path, "empty.png", encode_png(scene(1).frame), no_faces())
    analyse = Analyse(plan_job(settings).plan)
    works = [analyse(file) for file in [*list_inputs(settings.inputs), InputFile("gone.png", 1, 2)]]
    assert works[-1].end is not None
    again = table_to_works(works_to_table(works))
    for work, back in zip(works, again, strict=True):
        for name in ("file", "sha256", "width", "height", "reason", "whole", "analyse_s", "swap_s", "end"):
            assert getattr(back, name) == getattr(work, name)
        assert torch.equal(back.crops, work.crops)
        for name in ("box", "landmarks", "score", "embedding"):
            assert np.array_equal(getattr(back.faces, name), getattr(work.faces, name))
        for name in ("to_frame", "become", "source_before", "source_after", "owner_after"):
            assert np.array_equal(getattr(back, name), getattr(work, name), equal_nan=True)


def test_files_come_back_from_their_rows() -> None:
    files = [InputFile("a/ü.png", 3, 4), InputFile("b", 0, 0, "not a regular file")]
    assert table_to_files(files_to_table(files)) == files
