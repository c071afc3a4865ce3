"""The networks of a training run, put together from its settings."""

from __future__ import annotations

import torch

from pipeline.config import TrainConfig
from pipeline.errors import CheckpointError, DatasetError, ModelPackError
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.landmarks import LandmarkNetwork
from pipeline.faces.packs import file_digest, find_pack
from pipeline.model.checkpoint import EncoderReference, load_generator, read_header
from pipeline.model.discriminator import check_discriminator
from pipeline.model.generator import EXTRAS, extended, initialised
from pipeline.model.projected import build_discriminator
from pipeline.preparation.dataset import DatasetHeader
from pipeline.training.step import TrainingStep


def check_fit(settings: TrainConfig, header: DatasetHeader, encoder: EncoderReference, embedding_size: int) -> None:
    """Whether set, model, encoder and starting checkpoint belong together; every doubt is one line.

    Args:
        settings: of the job.
        header: of the prepared set.
        encoder: of the pack that `settings.models` names.
        embedding_size: length of its embeddings.

    Raises:
        DatasetError: crops of another size or alignment than the model's, or embeddings of another recogniser.
        CheckpointError: a starting checkpoint of another model or encoder.
        ConfigError: a discriminator that does not fit the crops.
    """
    model = settings.model
    if header.crop_size != model.crop_size:
        problem = f"holds crops of {header.crop_size} px, the model takes {model.crop_size}"
        raise DatasetError(settings.data, problem, f"Prepare with crop_size={model.crop_size}, or train another preset")
    if header.template != model.template:
        problem = f"holds crops aligned to {header.template}, the model takes {model.template}"
        raise DatasetError(settings.data, problem, f"Prepare with template={model.template}")
    if header.encoder_digest != encoder.digest:
        problem = f"holds embeddings of {header.encoder_name}, not of {encoder.name} from {settings.models}"
        raise DatasetError(settings.data, problem, "Set models to the pack that prepared the set")
    if embedding_size != model.embedding_size:
        problem = f"holds embeddings of {embedding_size} numbers, the model takes {model.embedding_size}"
        raise DatasetError(settings.data, problem, f"Set model.embedding_size={embedding_size}")
    if header.identities < 2:
        raise DatasetError(
            settings.data, "holds one identity: nobody to swap with", "Prepare photographs of more people"
        )
    check_discriminator(settings.discriminator, model.crop_size)
    if settings.initial is not None:
        _check_initial(settings, settings.initial, encoder)


def _check_initial(settings: TrainConfig, path: str, encoder: EncoderReference) -> None:
    header = read_header(path)
    theirs, ours = header.config.model_dump(), settings.model.model_dump()
    for extra in EXTRAS:
        theirs[extra] |= ours[extra]  # it can be given one
    different = ", ".join(f"model.{k} is {theirs[k]}, not {ours[k]}" for k in ours if theirs[k] != ours[k])
    if different:
        raise CheckpointError(path, f"is of another model: {different}", "Set model.* to the checkpoint's")
    if header.encoder.digest != encoder.digest:
        problem = f"was trained with identity encoder {header.encoder.name}, not {encoder.name}"
        raise CheckpointError(path, problem, "Set models to the pack that trained it")


def encoder_reference(models: str) -> EncoderReference:
    """Name and digest of a pack's recogniser.

    Raises:
        ModelPackError: the pack cannot be used.
    """
    recogniser = find_pack(models).recogniser
    return EncoderReference(recogniser.rsplit("/", 1)[-1], file_digest(recogniser))


def build_step(settings: TrainConfig, device: torch.device) -> TrainingStep:
    """Networks and optimisers as they are before the first step; the same on every worker."""
    model, seed = settings.model, settings.trainer.seed
    start = settings.initial
    generator = initialised(model, seed) if start is None else extended(load_generator(start), model)
    discriminator = build_discriminator(settings.discriminator, model.crop_size, seed)
    encoder = IdentityEncoder(find_pack(settings.models).recogniser, model.template)
    return TrainingStep(settings, generator, discriminator, encoder, device, landmark_network(settings))


def landmark_network(settings: TrainConfig) -> LandmarkNetwork | None:
    """The landmark network of a training's pack, if its loss has a weight.

    Raises:
        ModelPackError: the pack has none, or it cannot be used.
    """
    path = landmark_path(settings)
    return None if path is None else LandmarkNetwork(path, settings.model.template)


def landmark_path(settings: TrainConfig) -> str | None:
    """Path of that network.

    Raises:
        ModelPackError: the pack has none.
    """
    if not settings.losses.landmarks:
        return None
    path = find_pack(settings.models).landmarks
    if path is None:
        mend = "Add insightface's 2d106det.onnx to it, or set losses.landmarks=0"
        raise ModelPackError(settings.models, "holds no 2D landmark network, which losses.landmarks needs", mend)
    return path
