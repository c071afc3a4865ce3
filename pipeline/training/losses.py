"""The loss terms of SimSwap, each a pure function of what it compares (SimSwap, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def identity_loss(result: Tensor, source: Tensor) -> Tensor:
    """How far the result is from the source's identity (SimSwap, identity loss).

    Args:
        result: [B, E] unit-length embeddings of the generated crops.
        source: [B, E] unit-length embeddings of the sources.

    Returns:
        [] mean of 1 - cosine, 0..2.
    """
    return 1.0 - (result * source).sum(dim=1).mean()


def reconstruction_loss(result: Tensor, target: Tensor) -> Tensor:
    """L1 between crops of one person: swapping somebody with themselves changes nothing (SimSwap, reconstruction loss).

    Args:
        result: [B, 3, S, S] RGB 0..1, sources of the same identity as the targets.
        target: [B, 3, S, S] RGB 0..1.

    Returns:
        [] mean absolute difference.
    """
    return F.l1_loss(result, target)


def landmark_loss(result: Tensor, target: Tensor) -> Tensor:
    """How far features are from where they are in a crop of the same person in the same pose and with the same face.

    Pixels say little of it: a mouth beside its place differs in few of them. Ours; the paper has none.

    Args:
        result: [B, K, 2] landmarks, in distances of the eyes.
        target: the same of the crops to be shown; treated as constant.

    Returns:
        [] mean distance.
    """
    return (result - target.detach()).square().sum(dim=2).add(1e-8).sqrt().mean()


def discriminator_hinge_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """The discriminator's side of the hinge loss: `relu(1 - D(real)) + relu(1 + D(result))`, mean over scales.

    Args:
        real: per scale [B, 1, h, w] logits of target crops.
        fake: per scale [B, 1, h, w] logits of results.
    """
    terms = [F.relu(1.0 - r).mean() + F.relu(1.0 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_hinge_loss(fake: Sequence[Tensor]) -> Tensor:
    """The generator's side of the hinge loss: `-D(result)`, mean over scales.

    Args:
        fake: per scale [B, 1, h, w] logits of results.
    """
    return -torch.stack([f.mean() for f in fake]).mean()


def weak_feature_matching_loss(
    result: Sequence[Sequence[Tensor]], target: Sequence[Sequence[Tensor]], first_layer: int
) -> Tensor:
    """L1 between discriminator features, deep layers only (SimSwap, weak feature matching loss).

    Shallow layers hold texture and would pull the result back to the target's identity; deep layers hold the
    attributes to keep. "Weak" is this omission.

    Args:
        result: per scale and layer, shallow to deep, [B, C_i, H_i, W_i] for the generated crops.
        target: the same for the target crops; treated as constant.
        first_layer: index of the shallowest layer that counts.

    Returns:
        [] mean over layers of the mean absolute difference, summed over scales.
    """
    scales = []
    for of_result, of_target in zip(result, target, strict=True):
        deep = zip(of_result[first_layer:], of_target[first_layer:], strict=True)
        scales.append(torch.stack([F.l1_loss(r, t.detach()) for r, t in deep]).mean())
    return torch.stack(scales).sum()


def gradient_penalty(
    logits: Callable[[Tensor], Sequence[Tensor]], target: Tensor, result: Tensor, mix: Tensor
) -> Tensor:
    """Keep the discriminator's slope near one between photographs and results (Gulrajani et al., 2017, equation 3).

    Args:
        logits: the discriminator: [B, 3, S, S] to per scale [B, 1, h, w].
        target: [B, 3, S, S] RGB 0..1, the photographs.
        result: [B, 3, S, S] RGB 0..1; treated as constant.
        mix: [B] 0..1, where on the line from result to target to look.

    Returns:
        [] mean over the batch of (gradient's norm - 1) squared; differentiable in the discriminator's parameters.
    """
    weight = mix[:, None, None, None]
    between = (weight * target + (1.0 - weight) * result.detach()).requires_grad_(True)
    total = torch.stack([scale.mean(dim=(1, 2, 3)).sum() for scale in logits(between)]).mean()
    (slope,) = torch.autograd.grad(total, between, create_graph=True)
    norm = slope.flatten(1).norm(dim=1)
    penalty: Tensor = (norm - 1.0).square().mean()
    return penalty
