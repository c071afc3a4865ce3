from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.model.export import export_onnx
from pipeline.model.generator import EXTRAS, initialised
from tests.factories import TINY, tiny_checkpoint, unit_vectors


@pytest.mark.parametrize("change", [{"convention": "unit"}, {"convention": "imagenet"}, dict.fromkeys(EXTRAS, True)])
def test_the_exported_network_gives_what_torch_gives_for_any_batch(tmp_path: Path, change: dict[str, Any]) -> None:
    config = ModelConfig.model_validate(TINY.model_dump() | change)
    target, generator = str(tmp_path / "g.onnx"), initialised(config)
    if config.positions:
        torch.nn.init.normal_(generator.positions)
    export_onnx(tiny_checkpoint(tmp_path, config, generator), target, 1e-3)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["target", "embedding"]
    assert [o.name for o in session.get_outputs()] == ["result"]
    for batch in (1, 5):
        crops, embedding = np.random.default_rng(0).random((batch, 3, 64, 64), np.float32), unit_vectors(batch)
        (theirs,) = session.run(None, {"target": crops, "embedding": embedding})
        with torch.inference_mode():
            ours = generator(torch.from_numpy(crops), torch.from_numpy(embedding)).numpy()
        assert np.abs(theirs - ours).max() < 1e-4


def test_an_export_that_differs_too_much_is_refused_and_not_written(tmp_path: Path) -> None:
    target = tmp_path / "g.onnx"
    with pytest.raises(CheckpointError, match="differs from torch"):
        export_onnx(tiny_checkpoint(tmp_path), str(target), 1e-12)
    assert not target.exists()
