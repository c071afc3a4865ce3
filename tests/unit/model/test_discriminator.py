from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipeline.config import DiscriminatorConfig
from pipeline.errors import ConfigError
from pipeline.model.discriminator import PatchDiscriminator, check_discriminator
from pipeline.model.projected import build_discriminator

SMALL = DiscriminatorConfig(widths=(4, 8, 8))


def number_of_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_papers_network_has_6_96_million_weights_a_scale() -> None:
    discriminator = build_discriminator(DiscriminatorConfig(), 224, 0)
    assert isinstance(discriminator, PatchDiscriminator)
    assert [round(number_of_weights(n) / 1e6, 2) for n in discriminator.networks] == [6.96, 6.96]


@pytest.mark.parametrize("size", [64, 112, 160])
def test_every_scale_gives_logits_and_its_layers_shallow_to_deep(size: int) -> None:
    output = build_discriminator(SMALL, size, 0)(torch.rand(2, 3, size, size))
    for scale, side in enumerate([size, size // 2]):
        assert output.logits[scale].shape == (2, 1, side // 8, side // 8)
        shapes = [tuple(f.shape[1:3]) for f in output.features[scale]]
        assert shapes == [(4, side // 2), (8, side // 4), (8, side // 8), (8, side // 8 + 1)]


def test_64_px_are_enough_for_the_paper() -> None:
    output = build_discriminator(DiscriminatorConfig(), 64, 0)(torch.rand(1, 3, 64, 64))
    assert [tuple(logits.shape) for logits in output.logits] == [(1, 1, 4, 4), (1, 1, 2, 2)]


@pytest.mark.parametrize(
    ("widths", "scales", "size", "mend"),
    [
        (4, 2, 32, r"up to 3 widths or discriminator\.scales=1 would do"),
        (3, 1, 8, "up to 2 widths would do"),
        (1, 1, 2, "Take larger crops"),
    ],
)
def test_crops_too_small_for_it_are_refused_with_what_would_do(widths: int, scales: int, size: int, mend: str) -> None:
    config = DiscriminatorConfig(widths=(8,) * widths, scales=scales)
    with pytest.raises(ConfigError, match=f"leave nothing of crops of {size} px. {mend}"):
        check_discriminator(config, size)


def test_what_the_check_lets_through_can_be_trained_sample_by_sample() -> None:
    for size in range(4, 72):
        for scales in (1, 2, 3):
            config = DiscriminatorConfig(widths=(2, 2, 2), scales=scales)
            try:
                check_discriminator(config, size)
            except ConfigError:
                continue
            output = build_discriminator(config, size, 0).train()(torch.rand(1, 3, size, size))
            assert all(logits.numel() >= 1 for logits in output.logits)


def test_gradients_reach_the_images_from_every_scale_twice() -> None:
    discriminator = build_discriminator(SMALL, 64, 0)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    for scale in range(SMALL.scales):
        logits = discriminator(images).logits[scale]
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        assert slope.abs().amax(dim=(1, 2, 3)).gt(0).all()
        torch.autograd.backward(slope.square().sum())  # as the gradient penalty does
        first = discriminator.get_parameter(f"networks.{scale}.layers.0.0.weight")
        assert first.grad is not None
        assert first.grad.abs().sum() > 0


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_discriminator(SMALL, 64, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["networks.0.last.weight"], other["networks.0.last.weight"])
    assert not torch.equal(one["networks.0.last.weight"], one["networks.1.last.weight"])


def test_a_copy_is_its_own_network() -> None:
    discriminator = build_discriminator(SMALL, 64, 0).eval()
    twin = copy.deepcopy(discriminator)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(twin(images).logits[0], discriminator(images).logits[0])
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert not torch.equal(twin(images).logits[0], discriminator(images).logits[0])
