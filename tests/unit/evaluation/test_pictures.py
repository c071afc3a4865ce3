from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.evaluation.pictures import GAP, cell_side, lay_out, write_png


@pytest.mark.parametrize(("size", "side"), [(32, 128), (64, 128), (128, 128), (224, 224), (512, 256)])
def test_cells_are_large_enough_to_see_and_small_enough_to_send(size: int, side: int) -> None:
    picture = lay_out([[torch.zeros(3, size, size)] * 3] * 2)
    assert cell_side(size) == side
    assert picture.shape == (2 * side + GAP, 3 * side + 2 * GAP, 3)


def test_a_crop_is_shown_as_it_is_between_white_gaps(tmp_path: Path) -> None:
    crop = torch.zeros(3, 224, 224)
    crop[0] = 0.5
    picture = lay_out([[None, crop], [crop, crop * 3.0]])
    assert (picture[:224, :224] == 255).all()
    assert (picture[:, 224 : 224 + GAP] == 255).all()
    assert (picture[:224, 224 + GAP :] == (128, 0, 0)).all()
    assert (picture[224 + GAP :, 224 + GAP :] == (255, 0, 0)).all(), "what is too bright is white, not black"
    write_png(str(tmp_path / "new" / "grid.png"), picture)
    assert (np.asarray(Image.open(tmp_path / "new" / "grid.png")) == picture).all()
