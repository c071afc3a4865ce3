"""A frozen pretrained network as a differentiable source of feature maps."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import DiscriminatorConfig
from pipeline.errors import ModelPackError
from pipeline.media.copies import local_copy
from pipeline.model.onnx_module import OnnxModule, load_graph, needed_nodes

_WRITE = "Write it with torch.export.save"


class FrozenBackbone(nn.Module):
    """Images in, feature maps out; gradients reach the images and no weight.

    It stays in eval mode whatever the parent module does, and its weights are in the state dict. A torch.export archive
    of one fixed size sees the images resized to it; an ONNX network and an archive of any size see them as they are.

    Args:
        config: `backbone`, `feature_maps`, `mean` and `std` count.

    Raises:
        ModelPackError: not a network of 4-D feature maps, or an archive that was exported in training mode or for
            one batch size.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self._path = local_copy(str(config.backbone))
        self._side = 0  # 0: any
        if self._path.endswith(".pt2"):
            self.network, self._side = _load_archive(self._path)
        else:
            outputs = config.feature_maps or [value.name for value in load_graph(self._path).output]
            self.network = OnnxModule(self._path, outputs)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Always eval mode; an exported network would refuse to be told."""
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, S, S] RGB 0..1 to its feature maps [B, C_i, h_i, w_i], as the file orders them."""
        if self._side and images.shape[-1] != self._side:
            images = F.interpolate(images, (self._side, self._side), mode="bilinear", antialias=True)
        images = (images - self.mean) / self.std
        if isinstance(self.network, OnnxModule):
            return self.network.maps(images)
        return _as_list(self.network(images))

    def probe(self, images: Tensor) -> list[Tensor]:
        """The feature maps of a first batch, after looking whether they can be used.

        Raises:
            ModelPackError: they cannot.
        """
        before = [buffer.clone() for buffer in self.buffers()]
        with torch.no_grad():
            maps = self._first_run(images)
        if any(not torch.equal(old, new) for old, new in zip(before, self.buffers(), strict=True)):
            raise ModelPackError(self._path, "changes its own statistics", "Call eval() before torch.export.export")
        if not maps or any(m.ndim != 4 for m in maps):
            shapes = ", ".join(str(list(m.shape)) for m in maps)
            raise ModelPackError(
                self._path, f"gives {shapes or 'nothing'}, not feature maps [B, C, h, w]", self._mend(images)
            )
        sides = [m.shape[-1] for m in maps]
        if sides != sorted(sides, reverse=True):
            problem = f"gives feature maps of {', '.join(f'{s} px' for s in sides)}, not shallow to deep"
            raise ModelPackError(self._path, problem, "Order them by falling side")
        return maps

    def _first_run(self, images: Tensor) -> list[Tensor]:
        try:
            return self.forward(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            mend = "Export it for any batch size (dynamic_shapes), and for such images"
            if isinstance(self.network, OnnxModule):
                mend = "Name its feature maps in discriminator.feature_maps"
            raise ModelPackError(self._path, f"cannot take images {list(images.shape)} ({said})", mend) from error

    def _mend(self, images: Tensor) -> str:
        if not isinstance(self.network, OnnxModule):
            return "Export a module that returns the list of its feature maps"
        return f"discriminator.feature_maps='{json.dumps(suggested_maps(self._path, images))}' would do"


def suggested_maps(path: str, images: Tensor) -> list[str]:
    """Names of the last feature map of every size in an ONNX classifier, shallow to deep, from a quarter on.

    Args:
        path: the ONNX file.
        images: [B, 3, S, S] that it can take.
    """
    graph = load_graph(path)
    names = [node.output[0] for node in needed_nodes(path, graph, [o.name for o in graph.output])]
    with torch.no_grad():
        maps = OnnxModule(path, names).maps(images[:1])
    whole = images.shape[-1]
    last = {m.shape[-1]: name for name, m in zip(names, maps, strict=True) if m.ndim == 4}
    sides = [side for side in last if 1 < side <= whole // 4 and whole % side == 0]  # others were padded
    return [last[side] for side in sorted(sides, reverse=True)]


def _as_list(output: object) -> list[Tensor]:
    """What an exported module returned, as a list of maps."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else cast(Sequence[object], output)
    return [value for value in values if isinstance(value, Tensor)]


def _load_archive(path: str) -> tuple[nn.Module, int]:
    """An exported network, and the side it was exported for; 0 for any."""
    if not zipfile.is_zipfile(path):
        raise ModelPackError(path, "not a torch.export archive", _WRITE)
    _refuse_pickles(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ModelPackError(path, f"not a torch.export archive ({str(error).splitlines()[0]})", _WRITE) from error
    names = set(program.graph_signature.user_inputs)
    shapes: list[Any] = [node.meta["val"].shape for node in program.graph.nodes if node.name in names]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ModelPackError(path, f"takes {len(shapes)} inputs, not one batch of images [B, 3, S, S]")
    side = shapes[0][-1]
    return program.module(), side if isinstance(side, int) else 0


def _refuse_pickles(path: str) -> None:
    """See that nothing in an archive makes `torch.export.load` run code: it unpickles what it cannot read otherwise.

    Raises:
        ModelPackError: something would.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            base = name.rpartition("/")[2]
            if base.startswith(("custom_obj", "opaque")):
                raise _runs_code(path, name)
            if base.endswith("_config.json") and _pickled(json.loads(archive.read(name))):
                raise _runs_code(path, name)
            if base.endswith((".pt", ".pth")) and archive.getinfo(name).file_size:
                try:
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                    raise _runs_code(path, name) from error


def _pickled(config: Any) -> bool:
    entries = config.get("config", {}) if isinstance(config, dict) else {}
    return any(bool(entry.get("use_pickle")) for entry in entries.values())


def _runs_code(path: str, name: str) -> ModelPackError:
    problem = f"{name} in it is a pickle, which may run code"
    return ModelPackError(path, problem, "Write the archive with torch.export.save, of plain tensors")
