from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from pipeline.config import OptimiserConfig
from pipeline.training.averaging import Average
from pipeline.training.schedule import rate_factor


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
def test_the_rate_rises_over_the_warm_up_and_never_after(decay: str) -> None:
    settings = OptimiserConfig.model_validate({"warmup_steps": 10, "decay": decay, "final_fraction": 0.1})
    rates = [rate_factor(settings, step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[110] == pytest.approx(1.0 if decay == "constant" else 0.1)
    assert rates[60] == pytest.approx(1.0 if decay == "constant" else 0.55)


def test_the_average_follows_parameters_and_buffers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = Average(network, 0.9)
    for step in range(400):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(2.0)
            network[1].running_mean.fill_(3.0)  # type: ignore[operator]
            network[1].num_batches_tracked.fill_(step)  # type: ignore[operator]
        average.update(network, step)
    latest, averaged = network.state_dict(), average.network.state_dict()
    for name in latest:
        assert torch.allclose(averaged[name].float(), latest[name].float(), atol=1e-3), name
    assert not any(p.requires_grad for p in average.network.parameters())
    assert not average.network.training


def test_without_decay_the_average_is_the_latest() -> None:
    network = nn.Linear(2, 2)
    average = Average(network, 0.0)
    with torch.no_grad():
        network.weight.fill_(7.0)
    average.update(network, 0)
    assert torch.equal(average.network.weight, network.weight)
