from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.errors import ModelPackError
from pipeline.model.onnx_module import OnnxModule
from tests.factories import recogniser_onnx


def onnx_output(path: str, batch: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(output)


@pytest.mark.parametrize("operator", ["PRelu", "Relu", "LeakyRelu", "Sigmoid", "Identity"])
def test_the_torch_module_gives_what_onnxruntime_gives(tmp_path: Path, operator: str) -> None:
    path = recogniser_onnx(tmp_path / "r.onnx", operator)
    batch = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert np.abs(OnnxModule(path)(batch).numpy() - onnx_output(path, batch.numpy())).max() < 1e-4


def one_node_onnx(path: Path, kind: str, opset: int, constants: dict[str, Any], **attributes: Any) -> str:
    """[B, 2, 6, 6] through one operator."""
    helper, kinds = onnx.helper, onnx.TensorProto
    node = helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    weights = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", kinds.FLOAT, ["B", 2, 6, 6])
    y = helper.make_tensor_value_info("y", kinds.FLOAT, ["B", 2, "h", "w"])
    graph = helper.make_graph([node], "one", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return str(path)


UPSAMPLE = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
DOUBLING = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
PADS = [0, 0, 1, 2, 0, 0, 3, 1]


@pytest.mark.parametrize(
    ("kind", "opset", "constants", "attributes"),
    [
        ("Clip", 6, {}, {"min": 0.0, "max": 0.5}),
        ("Clip", 13, {"low": np.float32(0.0), "high": np.float32(0.5)}, {}),
        ("Clip", 13, {"low": np.float32(-0.2)}, {}),
        ("HardSigmoid", 13, {}, {"alpha": 1 / 6}),
        ("HardSwish", 14, {}, {}),
        ("Pad", 2, {}, {"pads": PADS, "value": 0.5}),
        ("Pad", 13, {"pads": np.array(PADS), "fill": np.float32(0.5)}, {}),
        ("Pad", 13, {"pads": np.array(PADS)}, {"mode": "reflect"}),
        ("Pad", 13, {"pads": np.array(PADS)}, {"mode": "edge"}),
        ("Softmax", 11, {}, {"axis": 3}),
        ("Softmax", 13, {}, {"axis": -1}),
        ("Resize", 13, DOUBLING, UPSAMPLE),
        ("Resize", 11, {**DOUBLING, "scales": np.array([1, 1, 3, 4], np.float32)}, UPSAMPLE),
    ],
)
def test_an_operator_gives_what_onnxruntime_gives_in_old_and_new_files(
    tmp_path: Path, kind: str, opset: int, constants: dict[str, Any], attributes: dict[str, Any]
) -> None:
    path = one_node_onnx(tmp_path / "one.onnx", kind, opset, constants, **attributes)
    batch = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert np.abs(OnnxModule(path)(batch).numpy() - onnx_output(path, batch.numpy())).max() < 1e-6


def test_padding_that_depends_on_the_size_is_refused(tmp_path: Path) -> None:
    weight = {"w": np.ones((2, 2, 3, 3), np.float32)}
    path = one_node_onnx(tmp_path / "one.onnx", "Conv", 13, weight, auto_pad="SAME_UPPER", strides=[2, 2])
    with pytest.raises(ModelPackError, match="pads by auto_pad"):
        OnnxModule(path)


def test_tensors_inside_a_network_can_be_its_outputs(tmp_path: Path) -> None:
    path = recogniser_onnx(tmp_path / "r.onnx")
    batch = torch.randn(2, 3, 112, 112)
    inner, vector = OnnxModule(path, ["p", "out"]).maps(batch)
    assert inner.shape == (2, 8, 28, 28)
    assert torch.equal(vector, OnnxModule(path)(batch))


def test_operators_that_no_wanted_tensor_needs_may_be_unknown(tmp_path: Path) -> None:
    path = recogniser_onnx(tmp_path / "r.onnx", "Elu")
    assert OnnxModule(path, ["n"])(torch.randn(1, 3, 112, 112)).shape == (1, 8, 28, 28)


@pytest.mark.parametrize("name", ["buffalo_sc_dequant/w600k_mbf_dequant.onnx", "y1/rec_mobilefacenet_y1.onnx"])
@pytest.mark.assets
def test_real_recognisers_give_what_onnxruntime_gives(assets: Path, name: str) -> None:
    path = str(assets / "models" / name)
    batch = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert np.abs(OnnxModule(path)(batch).numpy() - onnx_output(path, batch.numpy())).max() < 1e-4


def test_gradients_reach_the_input_and_no_weight(tmp_path: Path) -> None:
    module = OnnxModule(recogniser_onnx(tmp_path / "r.onnx")).double()
    batch = torch.randn(1, 3, 112, 112, dtype=torch.float64, requires_grad=True)
    assert list(module.parameters()) == []
    direction = torch.randn_like(batch)
    loss = module(batch).square().sum()
    (gradient,) = torch.autograd.grad(loss, batch)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (module(batch + s * step * direction).square().sum() for s in (1, -1))
    assert torch.isclose((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-4)


def test_axes_and_sizes_never_leave_the_cpu(tmp_path: Path) -> None:
    """Read back from a GPU they would halt it in the middle of every pass."""
    module = OnnxModule(str(recogniser_onnx(tmp_path / "encoder.onnx")))
    assert all(buffer.is_floating_point() for buffer in module.buffers())
    assert module.to("meta")(torch.zeros(2, 3, 112, 112, device="meta")).shape == (2, 32)


def test_scales_never_leave_the_cpu_either(tmp_path: Path) -> None:
    module = OnnxModule(one_node_onnx(tmp_path / "one.onnx", "Resize", 13, DOUBLING, **UPSAMPLE))
    assert module.to("meta")(torch.zeros(3, 2, 6, 6, device="meta")).shape == (3, 2, 12, 12)


@pytest.mark.parametrize(
    ("kind", "opset", "constants", "attributes", "says"),
    [
        ("Resize", 13, DOUBLING, {"mode": "nearest"}, "otherwise than torch.nn.Upsample"),
        ("Resize", 13, DOUBLING, {**UPSAMPLE, "mode": "linear"}, "otherwise than torch.nn.Upsample"),
        ("Softmax", 11, {}, {}, "Softmax without an axis"),
    ],
)
def test_what_files_mean_differently_is_refused(
    tmp_path: Path, kind: str, opset: int, constants: dict[str, Any], attributes: dict[str, Any], says: str
) -> None:
    path = one_node_onnx(tmp_path / "one.onnx", kind, opset, constants, **attributes)
    with pytest.raises(ModelPackError, match=says):
        OnnxModule(path)


@pytest.mark.parametrize(
    ("kind", "constants", "attributes", "says"),
    [
        ("Resize", {**DOUBLING, "scales": np.array([1, 1, 1.5, 1.5], np.float32)}, UPSAMPLE, "whole factors"),
        ("Resize", {**DOUBLING, "scales": np.array([1, 2, 2, 2], np.float32)}, UPSAMPLE, "whole factors"),
        ("Softmax", {}, {"axis": 1}, "another axis than the last"),
        ("Gemm", {"b": np.ones((5, 5), np.float32)}, {}, "cannot be run on"),
    ],
)
def test_a_network_is_tried_before_it_is_used(
    tmp_path: Path, kind: str, constants: dict[str, Any], attributes: dict[str, Any], says: str
) -> None:
    path = one_node_onnx(tmp_path / "one.onnx", kind, 13, constants, **attributes)
    with pytest.raises(ModelPackError, match=says):
        OnnxModule(path).tried_on(path, 1, 2, 6, 6)


def test_weights_of_fewer_bits_are_widened_once(tmp_path: Path) -> None:
    helper, kinds = onnx.helper, onnx.TensorProto
    half = onnx.numpy_helper.from_array(np.full((1, 2, 1, 1), 0.1, np.float16), "half")
    nodes = [helper.make_node("Cast", ["half"], ["w"], to=kinds.FLOAT), helper.make_node("Conv", ["x", "w"], ["y"])]
    sides = ["B", 2, 6, 6], ["B", 1, 6, 6]
    x, y = (helper.make_tensor_value_info(n, kinds.FLOAT, side) for n, side in zip("xy", sides, strict=True))
    graph = helper.make_graph(nodes, "half", [x], [y], [half])
    path = str(tmp_path / "half.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    module, batch = OnnxModule(path), torch.rand(2, 2, 6, 6)
    assert [buffer.dtype for buffer in module.buffers()] == [torch.float32]
    assert np.abs(module(batch).numpy() - onnx_output(path, batch.numpy())).max() < 1e-6
    assert module.double()(batch.double()).dtype == torch.float64


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelPackError, match="operators that are not known here: Elu"):
        OnnxModule(recogniser_onnx(tmp_path / "r.onnx", "Elu"))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.onnx"
    path.write_bytes(b"hello, this is not a network")
    with pytest.raises(ModelPackError, match="not an ONNX file"):
        OnnxModule(str(path))
