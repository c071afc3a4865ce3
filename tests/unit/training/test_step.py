from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import DiscriminatorConfig, ModelConfig, TrainConfig
from pipeline.errors import CheckpointError, TrainingError
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.landmarks import LandmarkNetwork
from pipeline.faces.packs import find_pack
from pipeline.model.checkpoint import EncoderReference, load_generator, read_header
from pipeline.model.device import computes_in_bfloat16
from pipeline.model.discriminator import PatchDiscriminator
from pipeline.model.generator import initialised
from pipeline.portrait_pack import pack_folder
from pipeline.training.batches import Batch
from pipeline.training.state import GENERATOR, load_state, save_state
from pipeline.training.step import TrainingStep
from tests.factories import recogniser_onnx, unit_vectors

MODEL = ModelConfig(crop_size=32, widths=(8, 16), blocks=2, embedding_size=32)
CPU = torch.device("cpu")
REFERENCE = EncoderReference("small", "0" * 64)


def settings(**changes: Any) -> TrainConfig:
    small: dict[str, Any] = {
        "data": "set",
        "output": "run",
        "models": "pack",
        "model": MODEL.model_dump(),
        "discriminator": {"widths": [8, 16], "scales": 2},
        "losses": {"first_layer": 1, "gradient_penalty": 0.1},
        "trainer": {"global_batch_size": 4, "steps": 20},
    }
    for name, value in changes.items():
        small[name] = {**small.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainConfig.model_validate(small)


def make_step(
    folder: Path, config: TrainConfig, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> TrainingStep:
    encoder = folder / "encoder.onnx"
    if not encoder.exists():
        recogniser_onnx(encoder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        discriminator = PatchDiscriminator(config.discriminator.widths, config.discriminator.scales)
    backbone = IdentityEncoder(str(encoder), "arcface")
    networks = initialised(config.model).to(dtype), discriminator.to(dtype), backbone.to(dtype)
    finder = LandmarkNetwork(str(find_pack(pack_folder("portraits")).landmarks), "arcface").to(dtype)
    return TrainingStep(config, *networks, device, finder if config.losses.landmarks else None)


def batch(step: int, size: int = 4) -> Batch:
    random = torch.Generator().manual_seed(step)
    coarse = torch.rand(size, 3, 4, 4, generator=random)
    target = (torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear") * 255).to(torch.uint8)
    source = torch.from_numpy(unit_vectors(size, 32, seed=step))
    return Batch(
        step, target, target, source, torch.zeros_like(source), torch.rand(size, generator=random), step % 2 == 0
    )


def weights(step: TrainingStep) -> dict[str, torch.Tensor]:
    both = {f"g.{k}": v for k, v in step.generator.state_dict().items()}
    both |= {f"d.{k}": v for k, v in step.discriminator.state_dict().items()}
    return {name: value.clone() for name, value in both.items()}


def test_a_step_moves_both_networks_and_not_the_encoder(tmp_path: Path) -> None:
    step = make_step(tmp_path, settings())
    before, encoder = weights(step), [b.clone() for b in step._encoder.buffers()]
    figures = step(batch(0))
    after = weights(step)
    unmoved = [k for k in after if "num_batches" not in k and torch.equal(after[k], before[k])]
    assert all(k.endswith("bias") for k in unmoved), f"only biases before a norm may stay: {unmoved}"
    assert all(torch.equal(a, b) for a, b in zip(encoder, step._encoder.buffers(), strict=True))
    terms = {"identity", "reconstruction", "adversarial", "weak_feature_matching", "discriminator", "gradient_penalty"}
    assert {name for name in figures if name.startswith("loss/")} == {f"loss/{t}" for t in terms}
    assert "loss/reconstruction" not in step(batch(1)), "another person's reconstruction is nobody's"


def test_the_generators_terms_leave_the_discriminator_alone(tmp_path: Path) -> None:
    """Each network's gradient is that of its own loss, as if the other's terms were not there."""
    only_critic = settings(losses={"identity": 0, "reconstruction": 0, "weak_feature_matching": 0})
    whole, part = make_step(tmp_path, settings()), make_step(tmp_path, only_critic)
    whole(batch(0))
    part(batch(0))
    for one, other in zip(whole.discriminator.parameters(), part.discriminator.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_training_lowers_the_loss_of_swapping_people_with_themselves(tmp_path: Path) -> None:
    config = settings(
        losses={"adversarial": 0, "weak_feature_matching": 0, "identity": 0, "gradient_penalty": 0},
        trainer={"steps": 60},
        optimiser={"lr_generator": 2e-3},
    )
    step = make_step(tmp_path, config)
    losses = [step(batch(0))["loss/reconstruction"] for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_generator_undoes_the_disguise_of_what_it_is_given(tmp_path: Path) -> None:
    """Given negatives and compared with the crops, it learns to turn negatives round, and crops into negatives."""
    config = settings(
        losses={"adversarial": 0, "weak_feature_matching": 0, "identity": 0, "gradient_penalty": 0},
        trainer={"steps": 60},
        optimiser={"lr_generator": 2e-3},
    )
    step, plain = make_step(tmp_path, config), batch(0)
    negative = replace(plain, given=255 - plain.target)
    losses = [step(negative)["loss/reconstruction"] for _ in range(60)]
    assert losses[-1] < 0.75 * losses[0]
    assert step(plain)["loss/reconstruction"] > 1.2 * losses[-1]


def test_it_is_given_its_averages_swaps_to_strangers(tmp_path: Path) -> None:
    """In the grey levels of a picture, in place of what else would be given, and only where there is a stranger."""
    step = make_step(tmp_path, settings(feed={"disguise": {"own_swaps": 0.5}}))
    step(batch(1))  # so that average and generator differ
    stranger = torch.from_numpy(unit_vectors(4, 32, seed=9))
    stranger[2:] = 0.0
    some = replace(batch(0), given=255 - batch(0).target, stranger=stranger)
    given: list[torch.Tensor] = []
    hook = step.generator.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    with torch.no_grad():
        swapped = step.average.network(some.target / 255.0, stranger)
    step(some)
    hook.remove()
    assert torch.allclose(given[0][:2] * 255.0, (swapped[:2] * 255.0).round(), atol=1e-3)
    assert torch.equal(given[0][2:], some.given[2:] / 255.0)


def test_without_a_term_of_its_own_the_discriminator_rests(tmp_path: Path) -> None:
    step = make_step(tmp_path, settings(losses={"adversarial": 0, "weak_feature_matching": 0}))
    before = weights(step)
    figures = step(batch(0)) | step(batch(1))
    after = weights(step)
    assert {n for n in figures if n.startswith("loss/")} == {"loss/identity", "loss/reconstruction"}
    assert all(torch.equal(after[k], before[k]) for k in after if k.startswith("d."))
    assert any(not torch.equal(after[k], before[k]) for k in after if k.startswith("g."))


def test_a_penalty_every_fourth_step_weighs_four_times(tmp_path: Path) -> None:
    step = make_step(tmp_path, settings(losses={"gradient_penalty_every": 4}))
    assert step._weight("gradient_penalty") == pytest.approx(0.4)
    assert "loss/gradient_penalty" in step(batch(4))
    assert "loss/gradient_penalty" not in step(batch(5))


def test_a_landmark_loss_without_a_network_is_refused(tmp_path: Path) -> None:
    step = make_step(tmp_path, settings())
    with pytest.raises(ValueError, match="there is no landmark network"):
        TrainingStep(settings(losses={"landmarks": 1.0}), step.generator, step.discriminator, step._encoder, CPU)


def test_micro_batches_add_up_to_the_batch_where_no_norm_mixes_samples(tmp_path: Path) -> None:
    def gradients(size: int | None) -> list[torch.Tensor]:
        step = make_step(tmp_path, settings(trainer={"micro_batch_size": size}, losses={"gradient_penalty": 0}))
        for network in (step.generator, step.discriminator):
            network.eval()  # BatchNorm by its running statistics
        step(batch(0))
        return [p.grad for p in step.generator.parameters() if p.grad is not None]

    for whole, parts in zip(gradients(None), gradients(1), strict=True):
        assert torch.allclose(whole, parts, atol=1e-5)


def test_activation_checkpointing_changes_memory_and_nothing_else(tmp_path: Path) -> None:
    plain, frugal = (make_step(tmp_path, settings(trainer={"activation_checkpointing": on})) for on in (False, True))
    assert plain(batch(0)) == pytest.approx(frugal(batch(0)), rel=1e-5)
    for (name, one), other in zip(weights(plain).items(), weights(frugal).values(), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=1e-6), name


def test_bfloat16_gives_nearly_the_same_losses(tmp_path: Path) -> None:
    exact, rounded = (make_step(tmp_path, settings(trainer={"precision": p})) for p in ("float32", "bfloat16"))
    one, other = exact(batch(0)), rounded(batch(0))
    for name in one:
        if name.startswith("loss/"):
            assert one[name] == pytest.approx(other[name], rel=0.05, abs=0.02), name


def test_auto_precision_is_what_the_machine_computes_in(tmp_path: Path) -> None:
    here = "bfloat16" if computes_in_bfloat16(torch.device("cpu")) else "float32"
    chosen, same = (make_step(tmp_path, settings(trainer={"precision": p})) for p in ("auto", here))
    assert chosen(batch(0)) == same(batch(0))


def test_a_loss_that_is_not_finite_stops_before_any_weight_moves(tmp_path: Path) -> None:
    step = make_step(tmp_path, settings())
    before = weights(step)
    broken = batch(7)
    broken.source[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"step 7: not finite: .*loss/identity"):
        step(broken)
    trained = {k for k in before if "running" not in k and "num_batches" not in k}
    assert all(torch.equal(weights(step)[k], before[k]) for k in trained)


def test_a_saved_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    config = settings(optimiser={"warmup_steps": 5, "decay": "cosine"})
    straight = make_step(tmp_path, config)
    wanted = [straight(batch(n)) for n in range(10)]

    first = make_step(tmp_path, config)
    for n in range(5):
        first(batch(n))
    folder = tmp_path / "step"
    folder.mkdir()
    save_state(folder, first, 5, config, REFERENCE, [{"step": 5.0}], {"data": "portraits"})
    second = make_step(tmp_path, config)
    done, history = load_state(folder, second, config)
    assert (done, history) == (5, [{"step": 5.0}])
    assert [second(batch(n)) for n in range(5, 10)] == wanted[5:]
    for (name, one), other in zip(weights(straight).items(), weights(second).values(), strict=True):
        assert torch.equal(one, other), name


def test_what_training_wrote_loads_in_swap(tmp_path: Path) -> None:
    config = settings()
    step = make_step(tmp_path, config)
    step(batch(0))
    save_state(tmp_path, step, 1, config, REFERENCE, [], {"data": "portraits"})
    header = read_header(str(tmp_path / GENERATOR))
    assert (header.config, header.encoder, header.training) == (MODEL, REFERENCE, {"steps": 1, "data": "portraits"})
    target, source = torch.rand(2, 3, 32, 32), torch.from_numpy(unit_vectors(2, 32))
    with torch.no_grad():
        theirs = load_generator(str(tmp_path / GENERATOR))(target, source)
        assert torch.allclose(theirs, step.average.network(target, source), atol=1e-5)  # another memory layout


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    config = settings()
    save_state(tmp_path, make_step(tmp_path, config), 0, config, REFERENCE, [], {})
    other = settings(model={"blocks": 1})
    with pytest.raises(CheckpointError, match="is of another model"):
        load_state(tmp_path, make_step(tmp_path, other), other)
    wider = settings(discriminator=DiscriminatorConfig(widths=(8, 32)).model_dump())
    with pytest.raises(CheckpointError, match="does not fit these settings"):
        load_state(tmp_path, make_step(tmp_path, wider), wider)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    config = settings()
    step = make_step(tmp_path, config)
    save_state(tmp_path, step, 0, config, REFERENCE, [], {})
    path = tmp_path / "training.pt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path, step, config)


@pytest.mark.gpu
def test_a_recorded_step_is_the_step(tmp_path: Path) -> None:
    """Three kinds of steps (own source with and without penalty, another's), each recorded and replayed."""
    figures = []
    for recorded in (False, True):
        config = settings(trainer={"cuda_graphs": recorded}, losses={"gradient_penalty_every": 4, "landmarks": 1.0})
        step = make_step(tmp_path, config, device=torch.device("cuda"))
        figures.append([step(batch(n)) for n in range(12)])
    for plain, replayed in zip(*figures, strict=True):
        assert plain.keys() == replayed.keys()
        for name, value in plain.items():
            assert replayed[name] == pytest.approx(value, rel=2e-2, abs=2e-3), name  # atomic sums, TF32
