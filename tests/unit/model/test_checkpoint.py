from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import VARIANTS, ModelConfig
from pipeline.errors import CheckpointError
from pipeline.model.checkpoint import load_generator, read_header, save_checkpoint
from pipeline.model.generator import Generator, initialised
from pipeline.model.reference import convert_state, key_map, read_state
from tests.factories import ENCODER, TINY, tiny_checkpoint


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path)
    header, again = read_header(path), load_generator(path)
    assert (header.config, header.encoder, header.training) == (TINY, ENCODER, {"steps": 0})
    assert len(header.digest) == 64
    for key, value in initialised(TINY).state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert not again.training


def test_writing_over_a_checkpoint_leaves_nothing_else_behind(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    tiny_checkpoint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_what_is_no_checkpoint_is_refused_with_a_mend(tmp_path: Path) -> None:
    text, foreign = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    text.write_bytes(b"not a checkpoint at all")
    save_file({"x": torch.zeros(1)}, foreign)
    for path, says in (
        (tmp_path / "none", "no such file"),
        (text, "not a safetensors file"),
        (foreign, "no simswap-ray"),
    ):
        with pytest.raises(CheckpointError, match=says):
            read_header(str(path))


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    path = Path(tiny_checkpoint(tmp_path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_generator(str(path))


def test_weights_that_do_not_fit_the_header_are_refused(tmp_path: Path) -> None:
    other = ModelConfig(crop_size=64, widths=(8, 16), blocks=2)
    path = str(tmp_path / "wrong.safetensors")
    save_checkpoint(path, initialised(TINY).state_dict(), other, ENCODER, {})
    with pytest.raises(CheckpointError, match="do not fit its own header"):
        load_generator(path)


def published(variant: str = "inference-224") -> dict[str, torch.Tensor]:
    config = VARIANTS[variant]  # type: ignore[index]
    with torch.device("meta"):
        ours = Generator(config).state_dict()
    return {theirs: torch.zeros(ours[key].shape) for theirs, key in key_map(variant).items()}  # type: ignore[arg-type]


def test_the_key_map_is_one_to_one() -> None:
    for variant in VARIANTS:
        names = key_map(variant)
        assert len(set(names.values())) == len(names)


def test_a_state_of_another_variant_is_refused_and_the_fitting_one_is_named() -> None:
    with pytest.raises(CheckpointError, match="say variant=inference-224"):
        convert_state(published("inference-224"), "trained-512", "g.pth")
    with pytest.raises(CheckpointError, match="It has the shape of trained-512"):
        convert_state(published("trained-512"), "inference-512", "g.pth")


def test_an_unknown_state_is_refused_and_nothing_else_is_suggested() -> None:
    state = published() | {"up9.1.weight": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"1 unknown, first up9\.1\.weight\. No published variant fits"):
        convert_state(state, "inference-224", "512beta.pth")


def test_a_wrong_shape_and_a_value_that_is_not_finite_are_refused() -> None:
    state = published()
    with pytest.raises(CheckpointError, match=r"has shape \[5\]"):
        convert_state(state | {"first_layer.1.bias": torch.zeros(5)}, "inference-224", "g.pth")
    with pytest.raises(CheckpointError, match="not finite"):
        convert_state(state | {"first_layer.1.bias": torch.full((64,), torch.nan)}, "inference-224", "g.pth")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pth_is_read_without_running_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, harmful, text, nested = (str(tmp_path / name) for name in ("good", "harmful", "text", "nested"))
    torch.save({"a": torch.ones(2)}, good)
    torch.save(Harmful(), harmful)
    Path(text).write_text("hello")
    torch.save({"state_dict": {"a": torch.ones(2)}}, nested)
    assert list(read_state(good)) == ["a"]
    for path, says in (
        (harmful, "not a plain torch state dict"),
        (text, "not a plain"),
        (nested, "not a mapping of tensors"),
    ):
        with pytest.raises(CheckpointError, match=says):
            read_state(path)
    assert "code ran" not in capsys.readouterr().out
