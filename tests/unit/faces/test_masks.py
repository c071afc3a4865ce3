from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import MaskConfig
from pipeline.errors import ModelPackError
from pipeline.faces.masks import MaskModel, soft_square
from tests.factories import parser_onnx


@given(size=st.sampled_from([32, 64, 224]), erode=st.floats(0, 0.3), feather=st.floats(0, 0.19))
def test_the_rim_is_0_the_middle_is_1_and_between_it_only_rises(size: int, erode: float, feather: float) -> None:
    mask = soft_square(size, erode, feather)
    middle = mask[size // 2]
    assert mask[size // 2, size // 2] == 1
    assert (mask >= 0).all() and (mask <= 1).all()  # noqa: PT018
    assert (np.diff(middle[: size // 2]) >= 0).all()
    assert np.allclose(mask, mask[::-1]) and np.allclose(mask, mask.T)  # noqa: PT018
    rim = int(erode * size)
    assert not rim or mask[:rim].max() == 0


@pytest.mark.parametrize(("classes", "side"), [(19, "s"), (1, "s"), (19, 32), (1, 32)])
def test_a_mask_model_keeps_the_face_and_softens_its_edge(tmp_path: Path, classes: int, side: int | str) -> None:
    path = parser_onnx(tmp_path / "p.onnx", classes, side)
    settings = MaskConfig(model=path, keep_classes=(1,), mean=(0, 0, 0), std=(1, 1, 1), softness=0.05)
    crops = torch.zeros(2, 3, 64, 64)
    crops[:, 0, 16:48, 16:48] = 1.0
    masks = MaskModel(settings)(crops)
    assert masks.shape == (2, 64, 64)
    assert masks[:, 32, 32].min() == pytest.approx(1.0, abs=1e-5)
    assert masks[:, :12].max() == pytest.approx(0.0, abs=1e-5)
    assert ((masks > 0.05) & (masks < 0.95)).any()


def test_a_missing_or_wrong_mask_model_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "m.onnx"
    text.write_text("no network")
    for path, says in ((tmp_path / "none.onnx", "no such mask model"), (text, "not a usable ONNX network")):
        with pytest.raises(ModelPackError, match=says):
            MaskModel(MaskConfig(model=str(path)))
