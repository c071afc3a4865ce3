"""Any feed-forward ONNX recogniser as a differentiable torch module.

A small executor for the operators that insightface's recognisers are made of. Weights become frozen
buffers, so gradients reach the input and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelPackError

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

Attributes = dict[str, Any]
Operator = Callable[[Sequence[Tensor | None], Attributes], Tensor]


class OnnxModule(nn.Module):
    """A network read from an ONNX file: one input, one output.

    Args:
        path: the ONNX file.

    Raises:
        ModelPackError: unreadable, more than one input or output, or an operator outside `OPERATORS`.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        try:
            model = onnx.load(path)
        except OSError as error:
            raise ModelPackError(path, f"cannot be read ({error.strerror})") from error
        except DecodeError as error:
            raise ModelPackError(path, "not an ONNX file") from error
        graph = model.graph
        self._nodes = [(node.op_type, list(node.input), node.output[0], _attributes(node)) for node in graph.node]
        self._check_operators(path)
        self._constants = {tensor.name: f"weight_{i}" for i, tensor in enumerate(graph.initializer)}
        for tensor in graph.initializer:
            value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
            self.register_buffer(self._constants[tensor.name], value)
        inputs = [value for value in graph.input if value.name not in self._constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ModelPackError(path, f"has {len(inputs)} inputs and {len(graph.output)} outputs, not one of each")
        self._input, self._output = inputs[0].name, graph.output[0].name
        self._last_use = self._find_last_uses()

    def forward(self, batch: Tensor) -> Tensor:
        """Run the network: the ONNX input [B, …] to the ONNX output [B, …]."""
        values: dict[str, Tensor] = {self._input: batch}
        for index, (kind, inputs, output, attributes) in enumerate(self._nodes):
            arguments = [self._lookup(name, values) for name in inputs]
            values[output] = OPERATORS[kind](arguments, attributes)
            for name in self._last_use.get(index, ()):
                values.pop(name, None)
        return values[self._output]

    def _lookup(self, name: str, values: dict[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        buffer: Tensor = getattr(self, self._constants[name])
        return buffer

    def _check_operators(self, path: str) -> None:
        unknown = sorted({kind for kind, *_ in self._nodes} - set(OPERATORS))
        if unknown:
            known = ", ".join(sorted(OPERATORS))
            raise ModelPackError(
                path, f"uses operators that are not known here: {', '.join(unknown)}", f"Known: {known}"
            )

    def _find_last_uses(self) -> dict[int, list[str]]:
        last = {name: index for index, (_, inputs, _, _) in enumerate(self._nodes) for name in inputs}
        uses: dict[int, list[str]] = {}
        for name, index in last.items():
            if name != self._output:
                uses.setdefault(index, []).append(name)
        return uses


def _attributes(node: onnx.NodeProto) -> Attributes:
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def _tensor(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("a required input of an ONNX operator is empty")
    return value


def _padded(x: Tensor, a: Attributes, fill: float = 0.0) -> Tensor:
    """ONNX pads are (top, left, bottom, right); torch wants (left, right, top, bottom)."""
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    return F.pad(x, (left, right, top, bottom), value=fill) if any((top, left, bottom, right)) else x


def _conv(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    bias = x[2] if len(x) > 2 else None
    image, weight = _tensor(x[0]), _tensor(x[1])
    stride, dilation, groups = tuple(a.get("strides", (1, 1))), tuple(a.get("dilations", (1, 1))), a.get("group", 1)
    return F.conv2d(_padded(image, a), weight, bias, stride, 0, dilation, groups)


def _batch_norm(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    image, scale, shift, mean, variance = (_tensor(v) for v in x)
    return F.batch_norm(image, mean, variance, scale, shift, training=False, eps=a.get("epsilon", 1e-5))


def _prelu(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    image, slope = _tensor(x[0]), _tensor(x[1])
    return F.prelu(image, slope.reshape(-1))


def _gemm(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    left, right = _tensor(x[0]), _tensor(x[1])
    left = left.T if a.get("transA", 0) else left
    right = right.T if a.get("transB", 0) else right
    product: Tensor = a.get("alpha", 1.0) * (left @ right)
    return product if len(x) < 3 or x[2] is None else product + a.get("beta", 1.0) * x[2]


def _max_pool(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    image = _padded(_tensor(x[0]), a, fill=float("-inf"))
    return F.max_pool2d(
        image, tuple(a["kernel_shape"]), tuple(a.get("strides", (1, 1))), ceil_mode=bool(a.get("ceil_mode"))
    )


def _average_pool(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    image, pads = _tensor(x[0]), tuple(a.get("pads", (0, 0, 0, 0)))
    kernel, stride = tuple(a["kernel_shape"]), tuple(a.get("strides", (1, 1)))
    if pads[:2] != pads[2:]:
        raise ValueError("AveragePool with uneven padding")
    return F.avg_pool2d(image, kernel, stride, pads[:2], bool(a.get("ceil_mode")), bool(a.get("count_include_pad")))


def _reduce_mean(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    axes = _tensor(x[1]).tolist() if len(x) > 1 and x[1] is not None else a.get("axes")
    return _tensor(x[0]).mean(dim=axes, keepdim=bool(a.get("keepdims", 1)))


def _reshape(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    image = _tensor(x[0])
    shape = [image.shape[i] if n == 0 else n for i, n in enumerate(_tensor(x[1]).tolist())]
    if shape[0] == 1 and image.shape[0] != 1:  # exported with a fixed batch of one
        shape[0] = image.shape[0]
    return image.reshape(shape)


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "PRelu": _prelu,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "GlobalAveragePool": lambda x, a: _tensor(x[0]).mean(dim=(2, 3), keepdim=True),
    "Relu": lambda x, a: F.relu(_tensor(x[0])),
    "LeakyRelu": lambda x, a: F.leaky_relu(_tensor(x[0]), a.get("alpha", 0.01)),
    "Sigmoid": lambda x, a: torch.sigmoid(_tensor(x[0])),
    "Add": lambda x, a: _tensor(x[0]) + _tensor(x[1]),
    "Sub": lambda x, a: _tensor(x[0]) - _tensor(x[1]),
    "Mul": lambda x, a: _tensor(x[0]) * _tensor(x[1]),
    "Div": lambda x, a: _tensor(x[0]) / _tensor(x[1]),
    "MatMul": lambda x, a: _tensor(x[0]) @ _tensor(x[1]),
    "Flatten": lambda x, a: _tensor(x[0]).flatten(a.get("axis", 1)),
    "Transpose": lambda x, a: _tensor(x[0]).permute(a["perm"]),
    "Concat": lambda x, a: torch.cat([_tensor(v) for v in x], dim=a["axis"]),
    "Identity": lambda x, a: _tensor(x[0]),
    "Dropout": lambda x, a: _tensor(x[0]),
}
"""ONNX operator -> its torch form: inputs (None where left out) and attributes to the one output."""
