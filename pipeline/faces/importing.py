"""A published generator into a checkpoint of ours, bound to the identity encoder that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import VARIANTS, ImportConfig
from pipeline.errors import CheckpointError
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import file_digest, find_pack
from pipeline.model.checkpoint import EncoderReference, save_checkpoint
from pipeline.model.reference import convert_state, read_state


def import_checkpoint(path: str, target: str | None, settings: ImportConfig) -> dict[str, Any]:
    """Convert a state dict; every doubt is a refusal.

    Args:
        path: `.pth` file with the state dict alone.
        target: checkpoint to write; None only checks.
        settings: variant and encoder.

    Returns:
        Facts of the checkpoint: model, encoder, number of parameters.

    Raises:
        CheckpointError: not a state dict of that variant, or the encoder's embeddings have another length.
        ModelPackError: the encoder cannot be used.
    """
    config = VARIANTS[settings.variant]
    state = convert_state(read_state(path), settings.variant, path)
    recogniser = find_pack(settings.encoder).recogniser
    size = IdentityEncoder(recogniser, config.template).embedding_size
    if size != config.embedding_size:
        problem = (
            f"{settings.encoder} gives embeddings of {size} numbers, {settings.variant} takes {config.embedding_size}"
        )
        raise CheckpointError(path, problem, "Give the pack whose recogniser trained the generator")
    encoder = EncoderReference(Path(recogniser).name, file_digest(recogniser))
    if target is not None:
        origin = {"imported_from": Path(path).name, "sha256": file_digest(path), "variant": settings.variant}
        save_checkpoint(target, state, config, encoder, origin)
    return {
        "variant": settings.variant,
        "model": config.model_dump(mode="json"),
        "encoder": {"name": encoder.name, "sha256": encoder.digest},
        "parameters": sum(v.numel() for k, v in state.items() if "running" not in k and "num_batches" not in k),
    }
