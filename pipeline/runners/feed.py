"""Batches by Ray Data into one training worker: loaders beside it read, decode and augment, in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, Dataset

from pipeline.config import TrainConfig
from pipeline.runners.cluster import dataset_of, use_ray_data
from pipeline.training.batches import TENSORS, Batch, BatchLoader

_STEPS_A_BLOCK = 8
"""Steps that one loader makes at a time; the others make the next ones meanwhile."""

_STEPS_A_PASS = 20_000
"""Steps of one execution of Ray Data: its list of blocks stays short."""

Columns = dict[str, NDArray[np.generic]]


class LoadBatches:
    """`BatchLoader` for Ray Data: step numbers to samples, for one worker."""

    def __init__(self, settings: TrainConfig, rank: int, workers: int) -> None:
        torch.set_num_threads(1)
        self._loader = BatchLoader(settings)
        self._place = rank, workers

    def __call__(self, steps: Columns) -> Columns:
        """One step's number to the samples of its batch."""
        batch = self._loader(int(steps["step"][0]), *self._place)
        count = len(batch)
        return {
            "step": np.full(count, batch.step),
            **{name: getattr(batch, name).numpy() for name in TENSORS},
            "same": np.full(count, batch.same),
        }


def feed(settings: TrainConfig, start: int, rank: int, workers: int) -> Iterator[Batch]:
    """The batches of one worker from a step to the last, while the next ones are being made.

    Args:
        settings: of the job.
        start: first step.
        rank: of the worker.
        workers: how many train together.

    Yields:
        Its share of every step's batch, in order.
    """
    use_ray_data(settings.ray)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    share = settings.trainer.global_batch_size // workers
    context.target_max_block_size = share * 6 * settings.model.crop_size**2  # a block leaves when a batch is done
    for first in range(start, settings.trainer.steps, _STEPS_A_PASS):
        last = min(first + _STEPS_A_PASS, settings.trainer.steps)
        rows = _loading(settings, range(first, last), rank, workers).iter_batches(
            batch_size=share, batch_format="numpy", prefetch_batches=settings.feed.prefetch_batches
        )
        for columns in rows:
            yield _batch(columns)


def _loading(settings: TrainConfig, steps: range, rank: int, workers: int) -> Dataset:
    blocks = [steps[i : i + _STEPS_A_BLOCK] for i in range(0, len(steps), _STEPS_A_BLOCK)]
    tables = [pa.table({"step": pa.array(list(block), pa.int64())}) for block in blocks]
    return dataset_of(tables).map_batches(
        LoadBatches,
        fn_constructor_args=(settings, rank, workers),
        batch_size=1,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=min(settings.feed.loaders, len(tables))),
        num_cpus=settings.feed.loader_cpus,
    )


def _batch(columns: Columns) -> Batch:
    """Ray's arrays are read-only: they are copied."""
    tensors = {name: torch.from_numpy(np.array(columns[name])) for name in TENSORS}
    return Batch(step=int(columns["step"][0]), same=bool(columns["same"][0]), **tensors)
