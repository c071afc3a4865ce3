"""Several training workers as one: the same weights, averaged gradients and figures, BatchNorm over all of them.

Everything here works with one worker too, and then does nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

Network = TypeVar("Network", bound=nn.Module)


def num_workers() -> int:
    """How many workers train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_workers(values: Tensor) -> Tensor:
    """[...] the mean over all workers, without gradient."""
    if num_workers() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / num_workers()


def any_worker(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on any worker: the same answer on all of them."""
    if num_workers() == 1:
        return flag
    return bool(mean_over_workers(torch.tensor(float(flag), device=device)) > 0)


def distributed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with its gradients averaged over all workers (DDP).

    Buffers are not synchronised at every call: BatchNorm over all workers keeps them the same, and a discriminator
    is called more than once before it goes backward.
    """
    if num_workers() == 1:
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False)


class CpuSyncBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all workers' batches, where torch's own wants CUDA.

    All workers have batches of one size.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """[B, C, ...] normalised by mean and variance over B, all workers and the rest."""
        if not self.training or num_workers() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = (1, -1, *[1] * (input.dim() - 2))
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = values.numel() // values.shape[1] * num_workers()
        mean = _sum_over_workers(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _sum_over_workers(centred.square().sum(axes)) / count
        self._record(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        gain = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * gain.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _record(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as torch's BatchNorm does."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """The sum over all workers; what every worker makes of it comes back to each, any number of times."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """[...] of this worker to [...] of all."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The gradients of all workers, summed."""
        return _Sum.apply(gradients[0])  # type: ignore[no-untyped-call]


def _sum_over_workers(values: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(values))  # type: ignore[no-untyped-call]


def synchronise_batch_norm(network: Network, device: torch.device) -> Network:
    """Every BatchNorm replaced by one over all workers, with the same parameters, buffers and names."""
    if num_workers() == 1:
        return network
    if device.type == "cuda":
        return cast(Network, cast(Any, nn.SyncBatchNorm).convert_sync_batchnorm(network))
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = CpuSyncBatchNorm(child.num_features, child.eps, child.momentum, dtype=child.weight.dtype)
            norm.load_state_dict(child.state_dict())
            setattr(network, name, norm.train(child.training))
        else:
            synchronise_batch_norm(child, device)
    return network
