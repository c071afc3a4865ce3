"""From a step's number to its batch: the same for every worker, every time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.config import TrainConfig
from pipeline.preparation.dataset import FaceDataset
from pipeline.training.augmentation import augment, draw_changes
from pipeline.training.disguise import disguise, draw_disguises
from pipeline.training.order import Pairing, SampleOrder
from pipeline.training.split import split_identities
from pipeline.types import Ints

_MIX, _OWN_SWAPS = 5, 7  # streams of random numbers; the others are order.py's, augmentation.py's and disguise.py's

TENSORS = ("given", "target", "source", "stranger", "mix")
"""Fields of a batch with a row for each sample."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One worker's share of a step's samples. A sample is (target crop, source embedding): no source is decoded.

    Attributes:
        step: optimiser steps done before this batch is used.
        given: [B, 3, S, S] u8 RGB, what the generator gets.
        target: [B, 3, S, S] u8 RGB, `given` without its disguise.
        source: [B, E] f32 unit length.
        stranger: [B, E] f32 unit length, whom the target is swapped to by the running average first, and then given
            in the place of `given`; zeros for nobody.
        mix: [B] f32 0..1, where the gradient penalty looks between target and result.
        same: whether every source is its target's own person.
    """

    step: int
    given: Tensor
    target: Tensor
    source: Tensor
    stranger: Tensor
    mix: Tensor
    same: bool

    def __len__(self) -> int:
        return len(self.target)

    def part(self, rows: slice) -> Batch:
        """Some of its samples."""
        return replace(self, **{name: getattr(self, name)[rows] for name in TENSORS})


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
        given = target = self._data.crops(samples[rows])
        disguised = same and (feed.disguise.tone or feed.disguise.tint or feed.disguise.shape)
        if disguised:
            disguises, landmarks = draw_disguises(feed.disguise, seed, positions), self._data.landmarks(samples[rows])
            given, target = disguise(target, landmarks, disguises, feed.disguise, self._settings.model.template)
        target = augment(target, changes, feed.augmentation)
        given = augment(given, changes, feed.augmentation) if disguised else target
        stranger = torch.zeros(share, self._data.embeddings.shape[1])
        if same and feed.disguise.own_swaps:
            chosen = np.random.default_rng([seed, _OWN_SWAPS, step]).random(size)[rows] < feed.disguise.own_swaps
            stranger[torch.from_numpy(chosen)] = self._embeddings(self._pairing.others(samples, step)[rows][chosen])
        mix = torch.from_numpy(np.random.default_rng([seed, _MIX, step]).random(size, np.float32)[rows])
        return Batch(step, given, target, self._embeddings(sources[rows]), stranger, mix, same)

    def _embeddings(self, samples: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._data.embeddings[samples]))
