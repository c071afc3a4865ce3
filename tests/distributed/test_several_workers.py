"""Several gloo workers are one worker with the same global batch."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from pipeline.config import TrainConfig
from pipeline.training.batches import Batch
from pipeline.training.workers import any_worker, mean_over_workers
from tests.unit.training.test_step import batch, make_step, settings

STEPS = 20
BATCH = 8


def config(kind: str) -> TrainConfig:
    """Own swaps in float64 alone: their grey levels make a jump of the rounding that float32 has."""
    return settings(
        trainer={"global_batch_size": BATCH, "steps": STEPS},
        optimiser={"warmup_steps": STEPS, "lr_generator": 1e-5, "lr_discriminator": 1e-5},
        feed={"disguise": {"own_swaps": float(kind == "float64")}},
    )


def whole(number: int) -> Batch:
    some = batch(number, BATCH)
    return replace(some, stranger=some.source.roll(1, 0))


def train(rank: int, workers: int, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group("gloo", f"file://{folder}/meeting-{kind}", rank=rank, world_size=workers)
    step = make_step(Path(folder), config(kind), getattr(torch, kind))
    share = slice(rank * BATCH // workers, (rank + 1) * BATCH // workers)
    figures = [step(whole(n).part(share)) for n in range(STEPS)]
    assert any_worker(rank == workers - 1, torch.device("cpu"))
    assert mean_over_workers(torch.tensor(float(rank))).item() == (workers - 1) / 2
    if rank == 0:
        weights = [v.double().abs().sum().item() for v in step.average.network.state_dict().values()]
        Path(folder, f"{workers}-{kind}.json").write_text(json.dumps([figures, weights]))
    if workers > 1:
        dist.barrier()  # nobody leaves while another still talks
        # Gloo's threads may still hold tensors, and an interpreter that ends then aborts (pytorch/pytorch#179291).
        os._exit(0)


@pytest.mark.parametrize(
    ("kind", "within"), [("float64", 1e-10), pytest.param("float32", 1e-4, marks=pytest.mark.long)]
)
def test_two_workers_are_one_with_the_same_global_batch(tmp_path: Path, kind: str, within: float) -> None:
    """Exact but for rounding, which Adam makes grow with the learning rate from step to step: hence float64 too."""
    train(0, 1, str(tmp_path), kind)
    spawn(train, (2, str(tmp_path), kind), nprocs=2)  # type: ignore[no-untyped-call]

    def figures(workers: int) -> Any:
        return json.loads((tmp_path / f"{workers}-{kind}.json").read_text())

    (one, weights_one), (two, weights_two) = figures(1), figures(2)
    for alone, together in zip(one, two, strict=True):
        assert alone.keys() == together.keys()
        for name in alone:
            if name.startswith("loss/"):
                # The penalty jumps where a LeakyReLU's slope does: one activation of another sign shows in it.
                limit = 10 * within if name == "loss/gradient_penalty" else within
                assert together[name] == pytest.approx(alone[name], abs=limit), name
    assert weights_two == pytest.approx(weights_one, rel=1e-3, abs=1e-2)
