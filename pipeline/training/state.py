"""Everything a run needs to go on, as a folder.

    generator.safetensors   the averaged generator: a checkpoint that `simswap swap` takes as it is
    training.pt             latest weights, both optimisers, the step; read with `weights_only`
    history.json            figures of the steps since the checkpoint before

Order, pairs, augmentation and learning rates are functions of seed and step: the step is the data's position and the
random numbers' state.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.config import TrainConfig
from pipeline.errors import CheckpointError
from pipeline.media.local_files import write_atomically
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.training.step import TrainingStep

GENERATOR = "generator.safetensors"
_TRAINING = "training.pt"
_HISTORY = "history.json"

History = list[dict[str, float]]
"""Figures of single steps, each with its number under `step`."""


def save_state(
    folder: Path, step: TrainingStep, done: int, settings: TrainConfig, encoder: EncoderReference, history: History,
    facts: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the state after `done` optimiser steps.

    Args:
        folder: to write to, existing and empty.
        step: networks and optimisers.
        done: optimiser steps.
        settings: of the job.
        encoder: identity encoder that the generator is trained with.
        history: figures since the last checkpoint.
        facts: for people, into the generator's header.
    """
    training = {"steps": done, **facts}
    averaged = step.average.network.state_dict()
    save_checkpoint(str(folder / GENERATOR), averaged, settings.model, encoder, training)
    state = {
        "done": done,
        "model": settings.model.model_dump_json(),
        "generator": step.generator.state_dict(),
        "discriminator": step.discriminator.state_dict(),
        "average": averaged,
        **{f"optimiser/{name}": optimiser.state_dict() for name, optimiser in step.optimisers.items()},
    }
    torch.save(state, folder / _TRAINING)
    write_atomically(folder / _HISTORY, json.dumps(history).encode())


def load_state(folder: Path, step: TrainingStep, settings: TrainConfig) -> tuple[int, History]:
    """Put the state of a folder into networks and optimisers.

    Returns:
        Optimiser steps done, and the figures of the steps since the checkpoint before.

    Raises:
        CheckpointError: damaged, or of another model, discriminator or number of parameters.
    """
    path = folder / _TRAINING
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        history = json.loads((folder / _HISTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(str(path), f"cannot be read ({error})", "Remove it; the one before is used") from error
    if state["model"] != settings.model.model_dump_json():
        raise CheckpointError(str(path), "is of another model", "Use the model's settings of that run")
    try:
        step.generator.load_state_dict(state["generator"])
        step.discriminator.load_state_dict(state["discriminator"])
        step.average.network.load_state_dict(state["average"])
        for name, optimiser in step.optimisers.items():
            optimiser.load_state_dict(state[f"optimiser/{name}"])
    except (RuntimeError, ValueError, KeyError) as error:
        said = str(error).splitlines()[0]
        raise CheckpointError(str(path), f"does not fit these settings ({said})", "Use the run's own") from error
    return int(state["done"]), history
