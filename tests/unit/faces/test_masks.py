from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save

from pipeline.config import MaskConfig
from pipeline.errors import ModelPackError
from pipeline.faces.masks import MaskModel, soft_square


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


def parser(path: Path, classes: int, side: int | str = "s") -> str:
    """A network that says class 1 (or probability 1) where red is high, else class 0."""
    weight = np.zeros((classes, 3, 1, 1), np.float32)
    weight[min(1, classes - 1), 0] = 1.0
    bias = (
        np.zeros(classes, np.float32) if classes == 1 else np.array([0.5] + [0.0] + [-9.0] * (classes - 2), np.float32)
    )
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[1, 1])
    shape = ["B", 3, side, side]
    graph = helper.make_graph(
        [node],
        "parser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", classes, side, side])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return str(path)


@pytest.mark.parametrize(("classes", "side"), [(19, "s"), (1, "s"), (19, 32), (1, 32)])
def test_a_mask_model_keeps_the_face_and_softens_its_edge(tmp_path: Path, classes: int, side: int | str) -> None:
    path = parser(tmp_path / "p.onnx", classes, side)
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
