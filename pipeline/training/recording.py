"""The GPU work of a step recorded once and replayed (CUDA graphs).

Launching a small network's kernels one by one takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.training.batches import TENSORS, Batch

Terms = dict[str, Tensor]

_WARM_UPS = 3
"""Runs before a recording, in which libraries choose their algorithms and allocate."""


class Recordings:
    """Does what `work` does, by replaying what it did.

    Args:
        work: from a batch to loss terms, leaving gradients in the parameters; of the batch's step it looks only at
            `penalises`.
        networks: whose gradients it makes and whose buffers it moves; on a GPU.
        penalises: whether `work` does more for a batch.
    """

    def __init__(
        self, work: Callable[[Batch], Terms], networks: Sequence[nn.Module], penalises: Callable[[Batch], bool]
    ) -> None:
        self._work = work
        self._networks = networks
        self._penalises = penalises
        self._recordings: dict[tuple[int, bool, bool], _Recording] = {}

    def __call__(self, batch: Batch) -> Terms:
        """Loss terms of a batch, and the parameters' gradients, until the next call."""
        kind = len(batch), batch.same, self._penalises(batch)
        if kind not in self._recordings:
            self._recordings[kind] = _Recording(self._work, self._networks, batch)
        return self._recordings[kind](batch)


class _Recording:
    """One kind of step."""

    def __init__(self, work: Callable[[Batch], Terms], networks: Sequence[nn.Module], batch: Batch) -> None:
        self._batch = _on_gpu(batch)
        self._parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
        buffers = [b for network in networks for b in network.buffers()]
        before = [b.clone() for b in buffers]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                work(self._batch)
                self._forget_gradients()
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._terms = work(self._batch)
        self._gradients = [p.grad for p in self._parameters]
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

    def __call__(self, batch: Batch) -> Terms:
        for name in TENSORS:
            getattr(self._batch, name).copy_(getattr(batch, name), non_blocking=True)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return dict(self._terms)

    def _forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _on_gpu(batch: Batch) -> Batch:
    return replace(batch, **{name: getattr(batch, name).cuda() for name in TENSORS})
