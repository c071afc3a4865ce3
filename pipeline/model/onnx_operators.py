"""ONNX operators in torch: what `OnnxModule` runs a network by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Attributes = dict[str, Any]
Operator = Callable[[Sequence[Tensor | None], Attributes], Tensor]


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


def _clip(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    """Limits are inputs (opset 11 on) or attributes."""
    image = _tensor(x[0])
    low = x[1] if len(x) > 1 else a.get("min")
    high = x[2] if len(x) > 2 else a.get("max")
    if low is not None:
        image = image.clamp_min(low)
    return image if high is None else image.clamp_max(high)


def _pad(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    """Pads are all begins, then all ends; torch wants (begin, end) pairs, last axis first."""
    image = _tensor(x[0])
    pads = _tensor(x[1]).tolist() if len(x) > 1 else list(a["pads"])
    fill = x[2] if len(x) > 2 else None
    value = a.get("value", 0.0) if fill is None else float(fill)
    if len(x) > 3 and x[3] is not None:
        raise ValueError("Pad with axes")
    pairs = [edge for axis in reversed(range(image.ndim)) for edge in (pads[axis], pads[axis + image.ndim])]
    kind = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[a.get("mode", "constant")]
    if kind == "constant":
        return F.pad(image, pairs, value=value)
    return F.pad(image, pairs[:4], mode=kind)  # the other two axes are batch and channels


def _resize(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    batch, channels, *factors = _tensor(x[2]).tolist()
    if (batch, channels) != (1.0, 1.0) or any(factor != int(factor) for factor in factors):
        raise ValueError("Resize other than by whole factors")
    return F.interpolate(_tensor(x[0]), scale_factor=factors, mode="nearest")


def _softmax(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    image = _tensor(x[0])
    if a["axis"] not in (-1, image.ndim - 1):  # over others old files mean something else
        raise ValueError("Softmax over another axis than the last")
    return image.softmax(-1)


def _hard_sigmoid(x: Sequence[Tensor | None], a: Attributes) -> Tensor:
    return torch.clamp(a.get("alpha", 0.2) * _tensor(x[0]) + a.get("beta", 0.5), 0.0, 1.0)


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "PRelu": _prelu,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Resize": _resize,
    "Softmax": _softmax,
    "GlobalAveragePool": lambda x, a: _tensor(x[0]).mean(dim=(2, 3), keepdim=True),
    "Relu": lambda x, a: F.relu(_tensor(x[0])),
    "LeakyRelu": lambda x, a: F.leaky_relu(_tensor(x[0]), a.get("alpha", 0.01)),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x, a: F.hardswish(_tensor(x[0])),
    "Pad": _pad,
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
