"""A generator as ONNX: crop and embedding in, result out, RGB 0..1 whatever the weights' own convention."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from pipeline.errors import CheckpointError, ConfigError
from pipeline.media.local_files import write_atomically
from pipeline.model.checkpoint import load_generator
from pipeline.model.generator import Generator


def export_onnx(checkpoint: str, target: str | None, tolerance: float) -> dict[str, Any]:
    """Write inputs `target` [B,3,S,S] and `embedding` [B,E] to output `result` [B,3,S,S], with B free.

    Args:
        checkpoint: of ours.
        target: the file to write; None only checks that the export would work.
        tolerance: largest absolute difference to torch allowed in onnxruntime.

    Returns:
        Facts: size in bytes, the largest differences found.

    Raises:
        CheckpointError: the checkpoint cannot be used, or onnxruntime's result differs from torch's.
        ConfigError: the exporter is not installed.
    """
    generator = load_generator(checkpoint)
    data = _serialise(generator)
    differences = {str(batch): _difference(generator, data, batch) for batch in (1, 3)}
    worst = max(differences.values())
    if not worst <= tolerance:
        raise CheckpointError(
            checkpoint, f"exported, it differs from torch by {worst:.2e}, allowed are {tolerance:.0e}"
        )
    if target is not None:
        write_atomically(Path(target), data)
    return {
        "bytes": len(data),
        "largest_difference_by_batch": differences,
        "model": generator.config.model_dump(mode="json"),
    }


def _serialise(generator: Generator) -> bytes:
    config = generator.config
    crops = torch.rand(2, 3, config.crop_size, config.crop_size)
    embedding = torch.nn.functional.normalize(torch.randn(2, config.embedding_size))
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            program = torch.onnx.export(
                generator,
                (crops, embedding),
                input_names=["target", "embedding"],
                output_names=["result"],
                dynamic_shapes=({0: batch}, {0: batch}),
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except ImportError as error:
        raise ConfigError(
            "export", f"needs a package that is missing ({error})", "pip install 'simswap-ray[export]'"
        ) from None
    if program is None:
        raise CheckpointError("export", "torch returned no ONNX program")
    return bytes(program.model_proto.SerializeToString())


def _difference(generator: Generator, data: bytes, batch: int) -> float:
    """Largest absolute difference between torch and onnxruntime on a seeded batch."""
    config = generator.config
    random = np.random.default_rng(batch)
    crops = random.random((batch, 3, config.crop_size, config.crop_size), np.float32)
    embedding = random.standard_normal((batch, config.embedding_size)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["result"], {"target": crops, "embedding": embedding})
    with torch.inference_mode():
        ours = generator(torch.from_numpy(crops), torch.from_numpy(embedding)).numpy()
    return float(np.abs(theirs - ours).max())
