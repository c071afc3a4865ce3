from __future__ import annotations

import copy
import io
import json
import logging
import warnings
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from pipeline.config import DiscriminatorConfig
from pipeline.errors import ModelPackError
from pipeline.model.discriminator import check_discriminator
from pipeline.model.onnx_module import OnnxModule
from pipeline.model.projected import ProjectedDiscriminator, build_discriminator

SIZE = 64


class SmallNetwork(nn.Module):
    """Every kind of layer that ResNets, MobileNets and EfficientNets are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.deep = nn.Sequential(nn.ReflectionPad2d((0, 1, 0, 1)), nn.Conv2d(8, 16, 3, 2), nn.BatchNorm2d(16))
        self.last = nn.Sequential(nn.SiLU(), nn.ConstantPad2d(1, 0.5), nn.Conv2d(16, 24, 3, 2))

    def forward(self, images: Tensor) -> list[Tensor]:
        shallow = self.pool(self.stem(images))
        inner = self.middle(shallow)
        shallow = shallow + inner * self.gate(inner)
        deep = self.deep(shallow)
        return [shallow, deep, self.last(deep)]


class Classifier(SmallNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.head(super().forward(images)[-1].mean(dim=(2, 3)))
        return logits


def seeded(network: nn.Module) -> nn.Module:
    """With weights and statistics of their own, in eval mode."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=random) * 0.5 + ("var" in name) - 0.2)
    return network.eval()


def write_onnx(network: nn.Module, path: Path) -> str:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            seeded(network),
            (torch.rand(2, 3, SIZE, SIZE),),
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())
    return str(path)


def write_archive(network: nn.Module, path: Path, dynamic: bool = True) -> str:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `maps.onnx`, `classifier.onnx` and `maps.pt2` of the same weights."""
    root = tmp_path_factory.mktemp("backbones")
    write_onnx(SmallNetwork(), root / "maps.onnx")
    write_onnx(Classifier(), root / "classifier.onnx")
    write_archive(seeded(SmallNetwork()), root / "maps.pt2")
    return root


def projected(path: str | Path, size: int = SIZE, seed: int = 0, maps: tuple[str, ...] = ()) -> ProjectedDiscriminator:
    config = DiscriminatorConfig(kind="projected", backbone=str(path), projection_width=8, feature_maps=maps)
    discriminator = build_discriminator(config, size, seed)
    assert isinstance(discriminator, ProjectedDiscriminator)
    return discriminator


@pytest.mark.parametrize("file", ["maps.onnx", "maps.pt2"])
def test_both_files_of_a_network_give_its_own_features(folder: Path, file: str) -> None:
    images = torch.rand(3, 3, SIZE, SIZE)
    config = DiscriminatorConfig()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    wanted = seeded(SmallNetwork())((images - mean) / std)
    (features,) = projected(folder / file)(images).features
    for ours, theirs in zip(features, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_every_map_has_logits_of_the_deepest_maps_side(folder: Path) -> None:
    output = projected(folder / "maps.pt2")(torch.rand(2, 3, SIZE, SIZE))
    assert [f.shape[-1] for f in output.features[0]] == [16, 8, 4]
    assert [tuple(logits.shape) for logits in output.logits] == [(2, 1, 4, 4)] * 3


def test_an_onnx_network_sees_crops_of_any_size(folder: Path) -> None:
    output = projected(folder / "maps.onnx", 96)(torch.rand(1, 3, 96, 96))
    assert [f.shape[-1] for f in output.features[0]] == [24, 12, 6]


def test_an_archive_of_one_size_sees_crops_resized_to_it(folder: Path) -> None:
    images = torch.rand(1, 3, 96, 96, requires_grad=True)
    output = projected(folder / "maps.pt2", 96)(images)
    assert [f.shape[-1] for f in output.features[0]] == [16, 8, 4]
    torch.autograd.backward([logits.sum() for logits in output.logits])
    assert images.grad is not None


@pytest.mark.parametrize("file", ["maps.onnx", "maps.pt2"])
def test_gradients_reach_the_images_and_the_heads_but_neither_backbone_nor_mixing(folder: Path, file: str) -> None:
    discriminator = projected(folder / file).train()
    images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    torch.autograd.backward([logits.square().sum() for logits in discriminator(images).logits])
    assert images.grad is not None
    assert images.grad.abs().amax(dim=(1, 2, 3)).gt(0).all()
    trained = {name for name, p in discriminator.named_parameters() if p.requires_grad}
    assert all(name.startswith("heads.") for name in trained)
    moved = {name for name, p in discriminator.named_parameters() if p.grad is not None}
    assert moved == trained


@pytest.mark.parametrize("file", ["maps.onnx", "maps.pt2"])
def test_training_mode_changes_no_statistics_of_the_backbone(folder: Path, file: str) -> None:
    discriminator = projected(folder / file)
    images = torch.rand(4, 3, SIZE, SIZE)
    before = {name: value.clone() for name, value in discriminator.backbone.state_dict().items()}
    quiet = discriminator.eval()(images).features[0]
    loud = discriminator.train()(images).features[0]
    assert all(torch.equal(a, b) for a, b in zip(quiet, loud, strict=True))
    assert all(torch.equal(before[name], v) for name, v in discriminator.backbone.state_dict().items())


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_numbers_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    one, same, other = (projected(folder / "maps.pt2", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name in ("mixing.weight_0", "heads.0.0.parametrizations.weight.original"):
        assert not torch.equal(one[name], other[name])


def test_saved_weights_bring_back_mixing_heads_and_power_iteration(folder: Path) -> None:
    one, other = projected(folder / "maps.pt2", seed=0), projected(folder / "maps.pt2", seed=1)
    images = torch.rand(2, 3, SIZE, SIZE)
    one(images)
    other.load_state_dict(one.state_dict())
    for twin in (other, copy.deepcopy(one)):
        for theirs, ours in zip(twin.eval()(images).logits, one.eval()(images).logits, strict=True):
            assert torch.equal(theirs, ours)


def test_a_missing_backbone_is_named_before_anything_is_built(tmp_path: Path) -> None:
    config = DiscriminatorConfig(kind="projected", backbone=str(tmp_path / "none.onnx"))
    with pytest.raises(ModelPackError, match=r"none.onnx: no such discriminator backbone. Set discriminator.backbone"):
        check_discriminator(config, SIZE)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("b.onnx", "not an ONNX file"), ("b.pt2", "not a torch.export archive"), ("b.pth", "neither .onnx nor .pt2")],
)
def test_what_is_no_network_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / name).write_bytes(b"hello, this is not a network")
    with pytest.raises(ModelPackError, match=problem):
        projected(tmp_path / name)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("import pathlib; pathlib.Path('/tmp/simswap-ran').touch()",))


@pytest.mark.parametrize("how", ["sample inputs", "pickled weight", "custom object"])
def test_an_archive_that_would_run_code_is_refused(folder: Path, tmp_path: Path, how: str) -> None:
    ran = Path("/tmp/simswap-ran")
    ran.unlink(missing_ok=True)
    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    with zipfile.ZipFile(folder / "maps.pt2") as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for name in good.namelist():
            data = good.read(name)
            if how == "sample inputs" and name.endswith("sample_inputs/model.pt"):
                data = buffer.getvalue()
            if how == "pickled weight" and name.endswith("model_weights_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            evil.writestr(name, data)
        if how == "custom object":
            evil.writestr("maps/data/constants/custom_obj_0", buffer.getvalue())
    with pytest.raises(ModelPackError, match="is a pickle, which may run code"):
        projected(tmp_path / "evil.pt2")
    assert not ran.exists()


def test_a_classifier_is_refused_with_the_maps_that_would_do(folder: Path) -> None:
    with pytest.raises(ModelPackError, match=r"not feature maps.*discriminator.feature_maps='.*' would do") as caught:
        projected(folder / "classifier.onnx")
    names = tuple(json.loads(caught.value.mend.split("'")[1]))
    (features,) = projected(folder / "classifier.onnx", maps=names)(torch.rand(1, 3, SIZE, SIZE)).features
    assert [f.shape[-1] for f in features] == [16, 8, 4]
    with pytest.raises(ModelPackError, match="4 px, 8 px, 16 px, not shallow to deep"):
        projected(folder / "classifier.onnx", maps=names[::-1])


def test_an_archive_that_would_learn_or_takes_one_batch_size_is_refused(tmp_path: Path) -> None:
    path = write_archive(seeded(SmallNetwork()).train(), tmp_path / "train.pt2")
    with pytest.raises(ModelPackError, match=r"changes its own statistics.*eval"):
        projected(path)
    path = write_archive(seeded(SmallNetwork()), tmp_path / "fixed.pt2", dynamic=False)
    with pytest.raises(ModelPackError, match=r"cannot take images.*any batch size"):
        projected(path)


def test_a_tensor_that_an_onnx_network_lacks_is_named_with_near_ones(folder: Path) -> None:
    graph = onnx.load(str(folder / "maps.onnx")).graph
    name = graph.node[-1].output[0]
    with pytest.raises(ModelPackError, match=f"has no tensor '{name}x'. Did you mean .*{name}"):
        OnnxModule(str(folder / "maps.onnx"), [f"{name}x"])
