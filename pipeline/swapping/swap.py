"""Second stage: crops in, results out, on one device, in batches over many inputs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CheckpointError, RefusedInputError
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.masks import MaskModel
from pipeline.faces.packs import find_pack
from pipeline.failpoints import fail_point
from pipeline.model.checkpoint import load_generator, read_header
from pipeline.model.device import find_device
from pipeline.swapping.work import Plan, Work, cosines_to_sources, to_bytes, use_threads
from pipeline.types import Floats, Identity, Ints


class Swap:
    """Crops in, results out, on one device, in batches over many inputs.

    Args:
        plan: of the job.
    """

    def __init__(self, plan: Plan) -> None:
        settings = plan.settings
        use_threads(settings.pools.swap.threads)
        self._plan = plan
        self._device = find_device(settings.swapper.device)
        self._dtype: torch.dtype = getattr(torch, settings.swapper.precision)
        self._encoder = None
        if settings.models is not None:
            self._encoder = IdentityEncoder(find_pack(settings.models).recogniser, plan.header.config.template)
            self._encoder.to(self._device)
        self._mask_model = MaskModel(settings.mask, settings.pools.swap.threads) if settings.mask.model else None
        self._generator = None
        if settings.checkpoint is not None and not settings.swapper.passthrough:
            if read_header(settings.checkpoint).digest != plan.header.digest:
                problem = "has changed since the job was planned"
                raise CheckpointError(settings.checkpoint, problem, "Run the same command again")
            self._generator = load_generator(settings.checkpoint).fuse().to(self._device, self._dtype)
            self._generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._embeddings = torch.from_numpy(np.stack([s.embedding for s in plan.sources]))
        self._styles: dict[int, Tensor] = {}

    def __call__(self, works: Sequence[Work]) -> list[Work]:
        """Swap the crops of several inputs; full batches wherever there are enough faces."""
        start = time.perf_counter()
        for work in works:
            fail_point("swap", work.file.item)
        active = [work for work in works if len(work.crops)]
        if not active:
            return list(works)
        become = np.concatenate([work.become[work.become >= 0] for work in active])
        pixels = torch.cat([work.crops for work in active])
        size = self._plan.settings.swapper.batch_size
        parts = [self._batch(pixels[i : i + size], become[i : i + size]) for i in range(0, len(pixels), size)]
        seconds_each = (time.perf_counter() - start) / len(pixels)
        swapped = iter(_hand_back(active, _joined(parts), self._plan.sources, seconds_each))
        return [next(swapped) if len(work.crops) else work for work in works]

    def _batch(self, pixels: Tensor, become: Ints) -> _Results:
        """[B, 3, S, S] u8 target crops and their sources' indices to results."""
        with torch.inference_mode():
            target = pixels.to(self._device).float() / 255.0
            result = target
            if self._generator is not None:
                styles = torch.cat([self._style(int(index)) for index in become])
                shaped = target.to(self._dtype).contiguous(memory_format=torch.channels_last)
                result = self._generator.render(shaped, styles).float()
            finite = torch.isfinite(result).flatten(1).all(dim=1).cpu().numpy()
            embedding = None if self._encoder is None else self._encoder(result).cpu().numpy()
            masks = None if self._mask_model is None else to_bytes(torch.from_numpy(self._mask_model(target)))
            return _Results(to_bytes(result.nan_to_num()).cpu(), finite, embedding, masks)

    def _style(self, index: int) -> Tensor:
        """[1, blocks, 2, 2C] scale and shift of one source: computed once."""
        if index not in self._styles and self._generator is not None:
            embedding = self._embeddings[index : index + 1].to(self._device, self._dtype)
            self._styles[index] = self._generator.styles(embedding)
        return self._styles[index]


@dataclass(frozen=True, slots=True)
class _Results:
    """What the device gives back for a batch of crops.

    Attributes:
        crops: [B, 3, S, S] u8.
        finite: [B] whether every value of the result was a number.
        embedding: [B, E] of the results, or None without an encoder.
        masks: [B, S, S] u8, or None without a mask model.
    """

    crops: Tensor
    finite: NDArray[np.bool_]
    embedding: Floats | None
    masks: Tensor | None

    def at(self, rows: slice) -> _Results:
        """A part of the batch."""
        embedding = None if self.embedding is None else self.embedding[rows]
        return _Results(
            self.crops[rows], self.finite[rows], embedding, None if self.masks is None else self.masks[rows]
        )


def _joined(parts: Sequence[_Results]) -> _Results:
    embeddings = [part.embedding for part in parts if part.embedding is not None]
    masks = [part.masks for part in parts if part.masks is not None]
    return _Results(
        torch.cat([part.crops for part in parts]),
        np.concatenate([part.finite for part in parts]),
        np.concatenate(embeddings) if embeddings else None,
        torch.cat(masks) if masks else None,
    )


def _hand_back(
    works: Sequence[Work], results: _Results, sources: Sequence[Identity], seconds_each: float
) -> Iterator[Work]:
    """Give every input its own results, and score them."""
    first = 0
    for work in works:
        own = results.at(slice(first, first + len(work.crops)))
        first += len(work.crops)
        done = replace(work, crops=own.crops, masks=own.masks, swap_s=seconds_each * len(work.crops))
        if not own.finite.all():
            problem = f"the generator's result is not finite for {int((~own.finite).sum())} faces"
            mend = "Set swapper.precision=float32 or check the checkpoint"
            yield done.ended_by(RefusedInputError(work.file.item, problem, mend, code="not_finite"))
        else:
            yield done if own.embedding is None else _score(done, own.embedding, sources)


def _score(work: Work, embedding: Floats, sources: Sequence[Identity]) -> Work:
    """Cosines of the K results, [K, E], to their sources and to the faces' owners."""
    chosen = np.flatnonzero(work.become >= 0)
    full = np.full((len(work.faces), embedding.shape[1]), np.nan, np.float32)
    full[chosen] = embedding
    owner = np.full(len(work.faces), np.nan, np.float32)
    if work.faces.embedding.shape[1] == embedding.shape[1]:
        owner[chosen] = (work.faces.embedding[chosen] * embedding).sum(axis=1)
    return replace(work, source_after=cosines_to_sources(full, chosen, work.become, sources), owner_after=owner)
