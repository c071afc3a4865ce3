"""The pack's networks as ONNX files that insightface loads: batch norms folded, one file each, nothing beside it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.faces.identity import ENCODER_SIDE
from pipeline.faces.landmarks import LANDMARK_SIDE
from pipeline.portrait_pack.detector import STRIDES, Detector
from pipeline.portrait_pack.landmarker import POINTS, Landmarker, cell_places
from pipeline.portrait_pack.layers import Residual

OPSET, IR_VERSION = 13, 8
PRODUCER = "simswap-ray"

Network = TypeVar("Network", bound=nn.Module)


class Graph:
    """An ONNX graph under construction, written module by module.

    Args:
        half: keep the convolutions' weights as 16-bit floats and widen them when the file is loaded: half the file, the
            same arithmetic.
    """

    def __init__(self, half: bool = False) -> None:
        self._half = half
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, values: Any) -> str:
        """A constant's name."""
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """One node; the name of its output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def write(self, module: nn.Module, x: str) -> str:
        """The nodes of a module over the value `x`; the name of what comes out."""
        match module:
            case nn.Sequential():
                for child in module:
                    x = self.write(child, x)
                return x
            case Residual():
                return self.add("Add", x, self.write(module.body, x))
            case nn.Conv2d():
                return self._convolution(module, x)
            case nn.PReLU():
                return self.add("PRelu", x, self.weight(module.weight.reshape(-1, 1, 1)))
            case nn.ReLU():
                return self.add("Relu", x)
            case nn.AvgPool2d(kernel_size=int(side)):
                return self.add("AveragePool", x, kernel_shape=[side, side], strides=[side, side])
            case nn.Upsample(mode="nearest", scale_factor=float(factor)):
                scales = self.weight(np.array([1, 1, factor, factor], np.float32))
                return self.add(
                    "Resize", x, "", scales, mode="nearest", nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric",
                )  # fmt: skip
            case nn.Flatten():
                return self.add("Flatten", x, axis=1)
            case nn.Linear():
                return self.add("Gemm", x, self.weight(module.weight), self.weight(module.bias), transB=1)
        raise TypeError(f"no ONNX form for {type(module).__name__}")

    def _convolution(self, module: nn.Conv2d, x: str) -> str:
        weight = self.weight(module.weight.half() if self._half else module.weight)
        if self._half:
            weight = self.add("Cast", weight, to=TensorProto.FLOAT)
        inputs = [x, weight] + ([self.weight(module.bias)] if module.bias is not None else [])
        top, left = (int(n) for n in module.padding)
        return self.add(
            "Conv", *inputs, kernel_shape=list(module.kernel_size), strides=list(module.stride),
            pads=[top, left, top, left], group=module.groups,
        )  # fmt: skip


def folded(network: Network) -> Network:
    """A copy, in eval mode, whose batch norms are part of the convolutions before them."""
    network = copy.deepcopy(network).eval()
    for parent in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        children = list(parent)
        for index in range(1, len(children)):
            convolution, norm = children[index - 1], children[index]
            if isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
                parent[index - 1], parent[index] = fuse_conv_bn_eval(convolution, norm), nn.Sequential()
    return network


def export_recogniser(network: nn.Module, path: Path) -> None:
    """[B, 3, 112, 112] in -1..1 to [B, E], not yet of length one."""
    graph = Graph()
    graph.write(folded(network), "pixels")
    graph.nodes[-1].output[0] = "embedding"
    _save(graph, ["B", 3, ENCODER_SIDE, ENCODER_SIDE], [("embedding", ["B", _embedding_size(network)])], path)


def export_detector(detector: Detector, path: Path) -> None:
    """[1, 3, H, W] in -1..1 to insightface's nine outputs: scores, boxes, landmarks; each at strides 8, 16, 32."""
    ready, graph, x = folded(detector), Graph(half=True), "pixels"
    outputs: dict[str, list[str]] = {"score": [], "box": [], "landmarks": []}
    for stage, head in ready.levels():
        x = graph.write(stage, x)
        tower = graph.write(head.tower, x)
        for kind, layer, width in head.parts():
            maps = graph.write(layer, tower)
            rows = graph.add("Reshape", graph.add("Transpose", maps, perm=[0, 2, 3, 1]), graph.weight([-1, width]))
            outputs[kind].append(graph.add("Sigmoid", rows) if kind == "score" else rows)
    widths = {"score": 1, "box": 4, "landmarks": 10}
    named = [
        (name, [f"cells_{stride}", widths[kind]])
        for kind in widths
        for name, stride in zip(outputs[kind], STRIDES, strict=True)
    ]
    _save(graph, [1, 3, "H", "W"], named, path)


def export_landmarker(landmarker: Landmarker, path: Path) -> None:
    """[1, 3, 192, 192] in -1..1 to [1, 10]: x, y of the landmarks, -1..1."""
    ready, graph = folded(landmarker), Graph(half=True)
    near = graph.write(ready.enter, "pixels")
    middle = graph.write(ready.down, near)
    middle = graph.add("Add", middle, graph.write(ready.deep, middle))
    maps = graph.write(ready.maps, graph.add("Add", near, graph.write(ready.up, middle)))
    heat = graph.add("Softmax", graph.add("Reshape", maps, graph.weight([1, POINTS, -1])), axis=2)
    means = graph.add("MatMul", heat, graph.weight(cell_places()))
    graph.add("Reshape", means, graph.weight([1, 2 * POINTS]), output="landmarks")
    _save(graph, [1, 3, LANDMARK_SIDE, LANDMARK_SIDE], [("landmarks", [1, 2 * POINTS])], path)


def _embedding_size(network: nn.Module) -> int:
    return [module.out_features for module in network.modules() if isinstance(module, nn.Linear)][-1]


def _save(graph: Graph, shape: Sequence[int | str], outputs: Sequence[tuple[str, list[Any]]], path: Path) -> None:
    built = helper.make_graph(
        graph.nodes,
        path.stem,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs],
        graph.weights,
    )
    model = helper.make_model(
        built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name=PRODUCER
    )
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
