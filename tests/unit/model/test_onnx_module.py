from __future__ import annotations

from pathlib import Path

import numpy as np
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


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelPackError, match="operators that are not known here: Elu"):
        OnnxModule(recogniser_onnx(tmp_path / "r.onnx", "Elu"))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.onnx"
    path.write_bytes(b"hello, this is not a network")
    with pytest.raises(ModelPackError, match="not an ONNX file"):
        OnnxModule(str(path))
