from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import VARIANTS, ModelConfig, Variant
from pipeline.model.device import computes_in_bfloat16
from pipeline.model.generator import Generator, extended, initialised
from pipeline.model.reference import convert_state
from tests.factories import TINY, parity_inputs, published_state, unit_vectors

PARAMETERS = {"inference-224": 55.05, "inference-512": 55.08, "trained-224": 55.05, "trained-512": 59.77}


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def published(parity: Path, variant: Variant) -> Generator:
    keys = json.loads((parity / f"keys_{variant}.json").read_text())
    generator = Generator(VARIANTS[variant]).eval()
    generator.load_state_dict(convert_state(published_state(keys), variant, variant))
    return generator


@pytest.mark.parametrize("variant", get_args(Variant))
def test_each_variant_has_the_published_number_of_parameters(variant: Variant) -> None:
    with torch.device("meta"):
        generator = Generator(VARIANTS[variant])
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 2) == PARAMETERS[variant]


@pytest.mark.parametrize("variant", get_args(Variant))
def test_each_variant_takes_the_published_keys_and_shapes(parity: Path, variant: Variant) -> None:
    published(parity, variant)


@pytest.mark.parametrize("variant", ["inference-224", pytest.param("trained-512", marks=pytest.mark.long)])
def test_the_bare_network_gives_the_reference_output(parity: Path, variant: Variant) -> None:
    generator = published(parity, variant)
    crop, embedding = parity_inputs(generator.config.crop_size)
    with torch.inference_mode():
        output = generator.network(crop, generator.styles(embedding))
        fused = generator.fuse().network(crop, generator.styles(embedding))
    reference = np.load(parity / f"reference_{variant}.npz")
    for result in (output, fused):
        assert np.abs(result[:, :, ::4, ::4].numpy() - reference["output"]).max() < 1e-3
        assert abs(result.double().mean().item() - reference["mean"]) < 1e-4
        assert abs(result.double().std(correction=0).item() - reference["std"]) < 1e-3


@pytest.mark.parametrize("convention", ["unit", "imagenet"])
def test_a_mask_chooses_between_what_is_drawn_and_the_target(convention: Literal["unit", "imagenet"]) -> None:
    config = TINY.model_copy(update={"convention": convention})
    plain, masked = initialised(config), initialised(config.model_copy(update={"mask": True}))
    drawn = plain.state_dict()
    drawn["last.weight"] = torch.cat([drawn["last.weight"], torch.zeros_like(drawn["last.weight"][:1])])
    crop, embedding = parity_inputs(config.crop_size)
    with torch.inference_mode():
        anew = plain(crop, embedding)
        for logit, expected in ((-50.0, crop), (50.0, anew), (0.0, (crop + anew) / 2)):
            masked.load_state_dict(drawn | {"last.bias": torch.cat([drawn["last.bias"], torch.tensor([logit])])})
            assert torch.allclose(masked(crop, embedding), expected, atol=1e-5)


def test_positions_tell_one_place_of_an_even_picture_from_another() -> None:
    """Convolutions alone cannot: far from the edge an even picture stays even."""
    plain = initialised(TINY)
    knowing = extended(plain, TINY.model_copy(update={"positions": True}))
    grey, embedding = torch.full((1, 3, 64, 64), 0.5), torch.from_numpy(unit_vectors(1))

    def unevenness(generator: Generator) -> float:
        with torch.inference_mode():
            return float(generator(grey, embedding)[:, :, 24:40, 24:40].std(dim=(2, 3)).max())

    assert unevenness(knowing) == unevenness(plain)
    with torch.no_grad():
        knowing.positions.copy_(torch.linspace(0, 1, knowing.positions[0, 0].numel()).view_as(knowing.positions[0, 0]))
    assert unevenness(knowing) > 10 * unevenness(plain)


def test_what_a_trained_generator_is_given_leaves_its_results_nearly_as_they_were() -> None:
    plain = initialised(TINY)
    both = extended(plain, TINY.model_copy(update={"positions": True, "mask": True}))
    crop, embedding = parity_inputs(64)
    with torch.inference_mode():
        before, after = plain(crop, embedding), both(crop, embedding)
        drawn = (before - crop).abs().mean()
        assert 0.8 * drawn < (after - crop).abs().mean() < drawn
        both.positions.normal_()
        assert torch.equal(extended(both, both.config)(crop, embedding), both(crop, embedding))


def test_with_one_width_every_layer_works_at_full_resolution() -> None:
    """Nothing is halved, so any side will do."""
    generator = initialised(ModelConfig(crop_size=33, widths=(8,), blocks=1, embedding_size=16))
    embedding = torch.from_numpy(unit_vectors(2, 16))
    sides: list[int] = []
    for block in generator.blocks:
        block.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    with torch.inference_mode():
        assert generator(torch.rand(2, 3, 33, 33), embedding).shape == (2, 3, 33, 33)
    assert sides == [33]


def test_bfloat16_stays_within_35_db_of_float32(parity: Path) -> None:
    if not computes_in_bfloat16(torch.device("cpu")):
        pytest.skip("this CPU emulates bfloat16: minutes")
    generator = published(parity, "inference-224").fuse()
    crop, embedding = parity_inputs(224)
    with torch.inference_mode():
        exact = generator(crop, embedding)
        generator.to(torch.bfloat16)
        rough = generator.render(crop.bfloat16(), generator.styles(embedding.bfloat16())).float()
    assert psnr(exact, rough) > 35


@pytest.mark.parametrize("convention", ["unit", "imagenet"])
def test_a_result_is_rgb_0_to_1_whatever_the_convention(convention: str) -> None:
    config = ModelConfig.model_validate(TINY.model_dump() | {"convention": convention})
    target, embedding = torch.rand(2, 3, 64, 64), torch.from_numpy(unit_vectors(2))
    with torch.inference_mode():
        result = initialised(config)(target, embedding)
    assert result.shape == target.shape
    assert result.min() >= 0
    assert result.max() <= 1


def test_the_two_224_conventions_share_keys_and_render_differently() -> None:
    one, other = (ModelConfig.model_validate(TINY.model_dump() | {"convention": c}) for c in ("unit", "imagenet"))
    first, second = initialised(one), Generator(other).eval()
    second.load_state_dict(first.state_dict())
    target, embedding = torch.rand(1, 3, 64, 64), torch.from_numpy(unit_vectors(1))
    with torch.inference_mode():
        assert not torch.allclose(first(target, embedding), second(target, embedding), atol=0.01)


def test_styles_computed_once_give_what_the_whole_generator_gives() -> None:
    generator = initialised(TINY)
    target, embedding = torch.rand(3, 3, 64, 64), torch.from_numpy(unit_vectors(1))
    with torch.inference_mode():
        whole = generator(target, embedding.expand(3, -1))
        once = generator.render(target, generator.styles(embedding).expand(3, -1, -1, -1))
    assert torch.allclose(whole, once, atol=1e-6)


def test_samples_of_a_batch_do_not_touch_each_other() -> None:
    generator = initialised(TINY)
    target, embedding = torch.rand(4, 3, 64, 64), torch.from_numpy(unit_vectors(4))
    with torch.inference_mode():
        together = generator(target, embedding)
        alone = torch.cat([generator(target[i : i + 1], embedding[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_source_matters_and_gradients_reach_every_parameter() -> None:
    generator = initialised(TINY).train()
    target, embedding = torch.rand(2, 3, 64, 64), torch.from_numpy(unit_vectors(2))
    generator(target, embedding).square().mean().backward()
    silent = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before a normalisation that subtracts the mean has no effect, so no gradient to speak of.
    assert [name for name in silent if not name.endswith("bias")] == []


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_crop_size_is_a_setting(size: int) -> None:
    config = ModelConfig(crop_size=size, widths=(4, 8, 8), blocks=2, embedding_size=16)
    with torch.inference_mode():
        result = initialised(config)(torch.rand(1, 3, size, size), torch.from_numpy(unit_vectors(1, 16)))
    assert result.shape == (1, 3, size, size)


def test_fusing_in_training_mode_is_refused() -> None:
    with pytest.raises(RuntimeError, match="eval mode"):
        initialised(TINY).train().fuse()


def test_initialised_weights_depend_on_the_seed_alone() -> None:
    a, b, c = (initialised(TINY, seed).last.weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
