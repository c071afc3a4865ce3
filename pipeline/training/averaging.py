"""The running average of a network's weights, which is smoother than the latest ones."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

_RAMP = 10.0


class Average(Generic[Network]):
    """Exponential moving average of parameters and buffers.

    Early on the decay is (1 + step) / (10 + step), so that the random beginning is forgotten.

    Args:
        network: to follow; copied.
        decay: of the average; 0 follows at once.

    Attributes:
        network: the averaged copy, in eval mode, without gradients.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's weights after `step` optimiser steps."""
        weight = 1.0 - min(self._decay, (1.0 + step) / (_RAMP + step)) if self._decay else 1.0
        latest = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(latest[name].to(value.dtype), weight)
            else:
                value.copy_(latest[name])
