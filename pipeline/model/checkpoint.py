"""Generator checkpoints: safetensors with the architecture, the identity encoder and training facts inside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.media.copies import local_copy
from pipeline.media.local_files import write_atomically
from pipeline.model.generator import Generator

FORMAT = "simswap-ray-generator/1"


@dataclass(frozen=True, slots=True)
class EncoderReference:
    """Which identity encoder a generator was trained with.

    Attributes:
        name: for people, usually the recogniser's file name.
        digest: sha256 of the encoder's file, hex; what decides whether another encoder is the same.
    """

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """Everything in a checkpoint but the weights.

    Attributes:
        config: the generator's architecture and pixel convention.
        encoder: the identity encoder whose embeddings it understands.
        training: facts for people: where it came from, steps, data digest.
        digest: sha256 of the whole file, hex.
    """

    config: ModelConfig
    encoder: EncoderReference
    training: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""


def save_checkpoint(
    path: str,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    encoder: EncoderReference,
    training: Mapping[str, Any],
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: where to; an existing file is replaced.
        state: state dict of a `Generator` of that config.
        config: its architecture.
        encoder: the identity encoder it was trained with.
        training: facts for people, JSON values only.
    """
    header = {
        "format": FORMAT,
        "model": config.model_dump_json(),
        "encoder": json.dumps({"name": encoder.name, "digest": encoder.digest}),
        "training": json.dumps(training),
    }
    write_atomically(Path(path), serialise({key: value.contiguous() for key, value in state.items()}, header))


def read_header(path: str) -> CheckpointHeader:
    """The header of a checkpoint, a path or an address, without loading its weights.

    Raises:
        CheckpointError: missing, not safetensors, or not one of ours.
        ConfigError: nothing is at that address.
    """
    path = local_copy(path)
    if not Path(path).is_file():
        raise CheckpointError(path, "no such file", "Make one with simswap import-checkpoint or simswap train")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            path, f"not a safetensors file ({error})", "Convert a .pth with simswap import-checkpoint"
        ) from None
    if header.get("format") != FORMAT:
        raise CheckpointError(path, "carries no simswap-ray header", "Convert it with simswap import-checkpoint")
    try:
        config = ModelConfig.model_validate_json(header["model"])
        encoder = EncoderReference(**json.loads(header["encoder"]))
        training = json.loads(header["training"])
    except (KeyError, TypeError, ValidationError, json.JSONDecodeError) as error:
        raise CheckpointError(path, f"its header is damaged ({error})", "Get or make the file anew") from None
    return CheckpointHeader(config, encoder, training, _sha256(path))


def load_generator(path: str) -> Generator:
    """A generator with the weights of a checkpoint, in eval mode.

    Raises:
        CheckpointError: as `read_header`, or the weights do not fit the header's architecture.
    """
    path = local_copy(path)
    generator = Generator(read_header(path).config).eval()
    wanted = generator.state_dict()
    with safe_open(path, framework="pt") as file:
        wrong = sorted(set(wanted) ^ set(file.keys()))
        wrong += [k for k in file.keys() if k in wanted and file.get_slice(k).get_shape() != list(wanted[k].shape)]  # noqa: SIM118
        if wrong:
            raise CheckpointError(path, f"{len(wrong)} tensors do not fit its own header, first {wrong[0]}")
        generator.load_state_dict({key: file.get_tensor(key) for key in wanted})
    return generator


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
