"""Any feed-forward ONNX recogniser or classifier as a differentiable torch module.

A small executor for the operators that insightface's recognisers, exported ResNets, MobileNets and EfficientNets,
and our landmark networks are made of. Weights become frozen buffers, so gradients reach the input and nothing else.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort
from torch import Tensor, nn

from pipeline.errors import ModelPackError
from pipeline.model.onnx_operators import OPERATORS, Attributes

ONNXRUNTIME_ERRORS = (
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoSuchFile,
    ort.NotImplemented,
    ort.RuntimeException,
)
"""What onnxruntime raises for a file that it cannot load or run: there is no common base."""


_DOUBLING = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
"""How torch writes `nn.Upsample`: every pixel a whole number of times."""


class OnnxModule(nn.Module):
    """A network read from an ONNX file, or the part of it that some of its tensors need: one input.

    Args:
        path: the ONNX file.
        outputs: names of the tensors to compute, of the graph's outputs or inside it; empty takes the graph's
            one output.

    Raises:
        ModelPackError: unreadable, more than one input or output, a tensor that is not there, or an operator that is
            needed and outside `OPERATORS`.
    """

    def __init__(self, path: str, outputs: Sequence[str] = ()) -> None:
        super().__init__()
        graph = load_graph(path)
        self._weights: dict[str, str] = {}
        # Axes, sizes and scales stay on the CPU: read from a GPU, each would halt it.
        self._shapes: dict[str, Tensor] = {}
        scales = {node.input[2] for node in graph.node if node.op_type == "Resize" and len(node.input) > 2}
        for index, (name, value) in enumerate(_constants(graph).items()):
            if value.is_floating_point() and name not in scales:
                self._weights[name] = f"weight_{index}"
                self.register_buffer(self._weights[name], value)
            else:
                self._shapes[name] = value
        inputs = [v.name for v in graph.input if v.name not in self._weights and v.name not in self._shapes]
        self._outputs = list(outputs) or [value.name for value in graph.output]
        if len(inputs) != 1 or (len(self._outputs) != 1 and not outputs):
            problem = f"has {len(inputs)} inputs and {len(self._outputs)} outputs, not one of each"
            raise ModelPackError(path, problem)
        self._input = inputs[0]
        known = {*self._weights, *self._shapes}
        nodes = [node for node in needed_nodes(path, graph, self._outputs) if node.output[0] not in known]
        _check_operators(path, nodes)
        self._nodes = [(node.op_type, list(node.input), node.output[0], _attributes(node)) for node in nodes]
        self._last_use = self._find_last_uses()

    def forward(self, batch: Tensor) -> Tensor:
        """Run the network: the ONNX input [B, …] to the one output [B, …]."""
        (output,) = self.maps(batch)
        return output

    def tried_on(self, path: str, *shape: int) -> Tensor:
        """What comes out for zeros of a shape.

        Raises:
            ModelPackError: the network cannot take them.
        """
        try:
            with torch.no_grad():
                return self.forward(torch.zeros(shape))
        except (IndexError, RuntimeError, ValueError) as error:
            raise ModelPackError(path, f"cannot be run on {list(shape)} ({str(error).splitlines()[0]})") from error

    def maps(self, batch: Tensor) -> list[Tensor]:
        """Run the network: the ONNX input [B, …] to every output that was asked for."""
        values: dict[str, Tensor] = {self._input: batch}
        for index, (kind, inputs, output, attributes) in enumerate(self._nodes):
            arguments = [self._lookup(name, values) for name in inputs]
            values[output] = OPERATORS[kind](arguments, attributes)
            for name in self._last_use.get(index, ()):
                values.pop(name, None)
        return [values[name] for name in self._outputs]

    def _lookup(self, name: str, values: dict[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._shapes:
            return self._shapes[name]
        weight: Tensor = getattr(self, self._weights[name])
        return weight

    def _find_last_uses(self) -> dict[int, list[str]]:
        last = {name: index for index, (_, inputs, _, _) in enumerate(self._nodes) for name in inputs}
        uses: dict[int, list[str]] = {}
        for name, index in last.items():
            if name not in self._outputs:
                uses.setdefault(index, []).append(name)
        return uses


def load_graph(path: str) -> onnx.GraphProto:
    """The graph of an ONNX file.

    Raises:
        ModelPackError: unreadable.
    """
    try:
        return onnx.load(path).graph
    except OSError as error:
        raise ModelPackError(path, f"cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ModelPackError(path, "not an ONNX file") from error


def needed_nodes(path: str, graph: onnx.GraphProto, outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that some tensors need, in the order they run in.

    Raises:
        ModelPackError: no node makes such a tensor.
    """
    made = {name for node in graph.node for name in node.output}
    for name in outputs:
        if name not in made:
            near = difflib.get_close_matches(name, made, 3)
            mend = f"Did you mean {' or '.join(near)}?" if near else ""
            raise ModelPackError(path, f"has no tensor {name!r}", mend)
    wanted, nodes = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output) and node.op_type != "Constant":
            wanted.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _constants(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Weights, and the values that a graph writes as nodes, by name."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = onnx.helper.get_attribute_value(node.attribute[0])
            is_tensor = isinstance(value, onnx.TensorProto)
            constants[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.array(value)
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in constants]
    for node in casts:  # weights kept in fewer bits
        kind = onnx.helper.tensor_dtype_to_np_dtype(onnx.helper.get_attribute_value(node.attribute[0]))
        constants[node.output[0]] = constants[node.input[0]].astype(kind)
    for name in {node.input[0] for node in casts}:
        del constants[name]
    return {name: torch.from_numpy(np.array(value)) for name, value in constants.items()}


def _check_operators(path: str, nodes: Sequence[onnx.NodeProto]) -> None:
    unknown = sorted({node.op_type for node in nodes} - set(OPERATORS))
    if unknown:
        known = ", ".join(sorted(OPERATORS))
        raise ModelPackError(path, f"uses operators that are not known here: {', '.join(unknown)}", f"Known: {known}")
    for kind, attributes in ((node.op_type, _attributes(node)) for node in nodes):
        if str(attributes.get("auto_pad", "NOTSET")).startswith("SAME"):
            raise ModelPackError(path, "pads by auto_pad", "Export it with explicit padding")
        if kind == "Resize" and {name: attributes.get(name) for name in _DOUBLING} != _DOUBLING:
            raise ModelPackError(path, "resizes otherwise than torch.nn.Upsample does by default")
        if kind == "Softmax" and "axis" not in attributes:
            raise ModelPackError(path, "holds a Softmax without an axis, which old and new files mean differently")


def _attributes(node: onnx.NodeProto) -> Attributes:
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}
