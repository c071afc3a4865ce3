"""State dicts in the published naming (`latest_net_G.pth`), turned into ours. Facts of the file format only."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config import VARIANTS, Variant
from pipeline.errors import CheckpointError
from pipeline.model.generator import Generator

_FIRST_DOWN: dict[Variant, int] = {"inference-224": 1, "inference-512": 0, "trained-224": 1, "trained-512": 1}
"""Number in the name of the first down stage (`down0` or `down1`)."""


def key_map(variant: Variant) -> dict[str, str]:
    """Published key of every tensor -> ours, for one variant."""
    config = VARIANTS[variant]
    names = {"first_layer.1": "first.0", "first_layer.2": "first.1", "last_layer.1": "last"}
    stages = len(config.widths) - 1
    for index in range(stages):
        number = _FIRST_DOWN[variant] + index
        names |= {f"down{number}.0": f"down.{index}.0", f"down{number}.1": f"down.{index}.1"}
        names |= {f"up{number}.1": f"up.{stages - 1 - index}.0", f"up{number}.2": f"up.{stages - 1 - index}.1"}
    for index in range(config.blocks):
        for half in (1, 2):
            names[f"BottleNeck.{index}.conv{half}.1"] = f"blocks.{index}.conv{half}"
            names[f"BottleNeck.{index}.style{half}.linear"] = f"blocks.{index}.adain{half}.style"
    published = {ours: theirs for theirs, ours in names.items()}
    keys = _empty_state(variant)
    return {f"{published[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": key for key in keys}


def convert_state(state: Mapping[str, Tensor], variant: Variant, subject: str) -> dict[str, Tensor]:
    """A published state dict under our keys.

    Raises:
        CheckpointError: a key is missing or unknown, a shape differs, or a value is not finite.
    """
    keys, wanted = key_map(variant), _empty_state(variant)
    missing, unknown = sorted(set(keys) - set(state)), sorted(set(state) - set(keys))
    if missing or unknown:
        raise CheckpointError(subject, _key_problem(state, variant, missing, unknown), _other_variant(state, variant))
    for theirs, ours in keys.items():
        if state[theirs].shape != wanted[ours].shape:
            shapes = f"{list(state[theirs].shape)}, {variant} has {list(wanted[ours].shape)}"
            raise CheckpointError(subject, f"{theirs} has shape {shapes}", _other_variant(state, variant))
        if not torch.isfinite(state[theirs]).all():
            raise CheckpointError(subject, f"{theirs} holds values that are not finite", "Get the file anew")
    return {ours: state[theirs].to(wanted[ours].dtype).contiguous() for theirs, ours in keys.items()}


def read_state(path: str) -> dict[str, Tensor]:
    """Tensors of a `.pth` file, loaded without running any code in it.

    Raises:
        CheckpointError: missing, not a torch file, holding more than tensors, or no mapping of tensors.
    """
    if not Path(path).is_file():
        raise CheckpointError(path, "no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        said = str(error).strip().splitlines()
        raise CheckpointError(
            path,
            f"not a plain torch state dict ({said[0] if said else type(error).__name__})",
            "Save the generator's state_dict() alone",
        ) from None
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(path, "not a mapping of tensors", "Save the generator's state_dict() alone")
    return {str(key): value for key, value in state.items()}


def _empty_state(variant: Variant) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(Generator(VARIANTS[variant]).state_dict())


def _key_problem(state: Mapping[str, Tensor], variant: Variant, missing: list[str], unknown: list[str]) -> str:
    parts = [f"{len(state)} tensors do not fit {variant}"]
    if missing:
        parts.append(f"{len(missing)} missing, first {missing[0]}")
    if unknown:
        parts.append(f"{len(unknown)} unknown, first {unknown[0]}")
    return "; ".join(parts)


def _other_variant(state: Mapping[str, Tensor], variant: Variant) -> str:
    """Which other variants the keys and shapes would fit, as the mend of an error."""
    fits = [name for name in VARIANTS if name != variant and _fits(state, name)]
    if fits:
        return f"It has the shape of {' or '.join(fits)}: say variant={fits[0]} if that is what it is"
    return "No published variant fits (the public 512 beta file fits none either): it cannot be imported"


def _fits(state: Mapping[str, Tensor], variant: Variant) -> bool:
    keys, wanted = key_map(variant), _empty_state(variant)
    return set(keys) == set(state) and all(state[t].shape == wanted[o].shape for t, o in keys.items())
