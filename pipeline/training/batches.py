"""From a step's number to its batch: the same for every worker, every time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.preparation.dataset import FaceDataset
from pipeline.training.augmentation import augment, draw_changes
from pipeline.training.disguise import disguise, draw_disguises
from pipeline.training.order import Pairing, SampleOrder
from pipeline.training.split import split_identities

_MIX = 5  # stream of random numbers; 0..4 are order.py's and augmentation.py's


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's share of a step's samples. A sample is (target crop, source embedding): no source is decoded.

    Attributes:
        step: optimiser steps done before this batch is used.
        given: [B, 3, S, S] u8 RGB, what the generator gets.
        target: [B, 3, S, S] u8 RGB, `given` without its disguise.
        source: [B, E] f32 unit length.
        mix: [B] f32 0..1, where the gradient penalty looks between target and result.
        same: whether every source is its target's own person.
    """

    step: int
    given: Tensor
    target: Tensor
    source: Tensor
    mix: Tensor
    same: bool

    def __len__(self) -> int:
        return len(self.target)

    def part(self, rows: slice) -> Batch:
        """Some of its samples."""
        given, target, source, mix = (values[rows] for values in (self.given, self.target, self.source, self.mix))
        return Batch(self.step, given, target, source, mix, self.same)


class BatchLoader:
    """Reads the batch of any step for any worker.

    Args:
        settings: of the job; its validation says who is held out.
        dataset: the set; None opens it anew, as a loader process does.

    Raises:
        DatasetError: the set cannot be read.
    """

    def __init__(self, settings: TrainConfig, dataset: FaceDataset | None = None) -> None:
        self._settings = settings
        self._data = dataset or FaceDataset(settings.data, settings.feed.window_shards)
        train = ~split_identities(self._data.names, settings.validation)[self._data.identity]
        seed = settings.trainer.seed
        self._order = SampleOrder(self._data.shard, train, seed, settings.feed.window_shards)
        self._pairing = Pairing(self._data.identity, train, seed)
        self.epoch_length = self._order.epoch_length

    def __call__(self, step: int, rank: int = 0, workers: int = 1) -> Batch:
        """The share of worker `rank` of `workers` in the batch of a step."""
        size, seed = self._settings.trainer.global_batch_size, self._settings.trainer.seed
        feed = self._settings.feed
        share = size // workers
        rows = slice(rank * share, (rank + 1) * share)
        samples = self._order.samples(step * size, size)
        same = step % feed.same_identity_every == 0
        sources = self._pairing.same(samples, step) if same else self._pairing.others(samples, step)
        positions = range(step * size + rank * share, step * size + (rank + 1) * share)
        changes = draw_changes(feed.augmentation, seed, positions)
        given = target = augment(self._data.crops(samples[rows]), changes, feed.augmentation)
        if same and (feed.disguise.tone or feed.disguise.warp):
            disguises = draw_disguises(feed.disguise, seed, positions)
            given = disguise(target, disguises, feed.disguise, self._settings.model.template)
        mix = np.random.default_rng([seed, _MIX, step]).random(size, np.float32)[rows]
        embeddings = np.ascontiguousarray(self._data.embeddings[sources[rows]])
        return Batch(step, given, target, torch.from_numpy(embeddings), torch.from_numpy(mix), same)
