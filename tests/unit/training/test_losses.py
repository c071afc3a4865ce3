from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.training import losses


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_identity_loss_is_nothing_for_the_source_and_two_for_its_opposite() -> None:
    source = unit(4, 16)
    assert losses.identity_loss(source, source).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.identity_loss(-source, source).item() == pytest.approx(2.0, abs=1e-6)


def test_landmarks_are_off_by_their_mean_distance_and_the_target_stands_still() -> None:
    target = torch.zeros(2, 2, 2, requires_grad=True)
    result = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    loss = losses.landmark_loss(result, target)
    assert loss.item() == pytest.approx(1.25, abs=1e-3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert target.grad is None
    assert torch.allclose(result.grad[0, 0], torch.tensor([0.6, 0.8]) / 4)  # type: ignore[index]
    assert bool(result.grad.isfinite().all())  # type: ignore[union-attr]


def test_the_hinge_is_at_rest_beyond_its_margins() -> None:
    far, near = [torch.full((2, 1, 3, 3), 1.5)], [torch.full((2, 1, 3, 3), 0.5)]
    assert losses.discriminator_hinge_loss(far, [-far[0]]).item() == 0.0
    assert losses.discriminator_hinge_loss(near, [-near[0]]).item() == pytest.approx(1.0)
    assert losses.generator_hinge_loss(far).item() == pytest.approx(-1.5)


def test_the_hinge_is_a_mean_over_scales_of_any_size() -> None:
    small, large = torch.zeros(2, 1, 1, 1), torch.full((2, 1, 9, 9), 3.0)
    assert losses.generator_hinge_loss([small, large]).item() == pytest.approx(-1.5)


def test_weak_feature_matching_does_not_look_at_shallow_layers() -> None:
    target = [[torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 2, 2), torch.zeros(1, 8, 1, 1)]]
    texture = [[torch.ones(1, 2, 4, 4), torch.zeros(1, 4, 2, 2), torch.zeros(1, 8, 1, 1)]]
    assert losses.weak_feature_matching_loss(texture, target, 1).item() == 0.0
    assert losses.weak_feature_matching_loss(texture, target, 0).item() == pytest.approx(1 / 3)


def test_feature_matching_takes_the_target_as_constant() -> None:
    result, target = torch.ones(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 2, 2, 2, requires_grad=True)
    losses.weak_feature_matching_loss([[result]], [[target]], 0).backward()  # type: ignore[no-untyped-call]
    assert target.grad is None
    assert result.grad is not None


def test_the_gradient_penalty_is_that_of_a_plane() -> None:
    slope = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)

    def plane(images: Tensor) -> list[Tensor]:
        return [(images * slope).sum(dim=(1, 2, 3)).view(-1, 1, 1, 1)]

    images, mix = torch.rand(5, 3, 8, 8), torch.rand(5)
    penalty = losses.gradient_penalty(plane, images, images.flip(0), mix)
    assert penalty.item() == pytest.approx((slope.norm().item() - 1.0) ** 2, rel=1e-4)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert slope.grad is not None
    assert torch.allclose(slope.grad, 2 * (slope.norm() - 1) * slope.detach() / slope.norm().detach(), atol=1e-4)
