"""Second stage: crops in, results out, on one device, in batches over many inputs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.masks import MaskModel
from pipeline.faces.packs import find_pack
from pipeline.model.checkpoint import load_generator
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
        self._device = _device(settings.swapper.device)
        self._dtype: torch.dtype = getattr(torch, settings.swapper.precision)
        self._encoder = None
        if settings.models is not None:
            self._encoder = IdentityEncoder(find_pack(settings.models).recogniser, plan.header.config.template)
            self._encoder.to(self._device)
        self._mask_model = MaskModel(settings.mask, settings.pools.swap.threads) if settings.mask.model else None
        self._generator = None
        if not settings.swapper.passthrough:
            self._generator = load_generator(settings.checkpoint).fuse().to(self._device, self._dtype)
            self._generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._embeddings = torch.from_numpy(np.stack([s.embedding for s in plan.sources]))
        self._styles: dict[int, Tensor] = {}

    def __call__(self, works: Sequence[Work]) -> list[Work]:
        """Swap the crops of several inputs; full batches wherever there are enough faces."""
        start = time.perf_counter()
        targets = [work.crops for work in works if len(work.crops)]
        if not targets:
            return list(works)
        become = np.concatenate([work.become[work.become >= 0] for work in works])
        pixels = torch.cat(targets)
        size = self._plan.settings.swapper.batch_size
        parts = [self._batch(pixels[i : i + size], become[i : i + size]) for i in range(0, len(pixels), size)]
        results, embeddings, masks = zip(*parts, strict=True)
        spent = (time.perf_counter() - start) / len(pixels)
        all_masks = None if masks[0] is None else torch.cat(masks)
        embedded = None if embeddings[0] is None else np.concatenate(embeddings)
        return _hand_back(works, torch.cat(results), embedded, all_masks, self._plan.sources, spent)

    def _batch(self, pixels: Tensor, become: Ints) -> tuple[Tensor, Floats | None, Tensor | None]:
        """[B, 3, S, S] u8 target crops to u8 results, result embeddings, and u8 masks."""
        with torch.inference_mode():
            target = pixels.to(self._device).float() / 255.0
            result = target
            if self._generator is not None:
                styles = torch.cat([self._style(int(index)) for index in become])
                shaped = target.to(self._dtype).contiguous(memory_format=torch.channels_last)
                result = self._generator.render(shaped, styles).float()
            embedding = None if self._encoder is None else self._encoder(result).cpu().numpy()
            masks = None if self._mask_model is None else to_bytes(torch.from_numpy(self._mask_model(target)))
            return to_bytes(result).cpu(), embedding, masks

    def _style(self, index: int) -> Tensor:
        """[1, blocks, 2, 2C] scale and shift of one source: computed once."""
        if index not in self._styles and self._generator is not None:
            embedding = self._embeddings[index : index + 1].to(self._device, self._dtype)
            self._styles[index] = self._generator.styles(embedding)
        return self._styles[index]


def _hand_back(
    works: Sequence[Work],
    results: Tensor,
    embeddings: Floats | None,
    masks: Tensor | None,
    sources: Sequence[Identity],
    seconds_each: float,
) -> list[Work]:
    """Give every input its own results, and score them."""
    done, at = [], 0
    for work in works:
        count = len(work.crops)
        own = slice(at, at + count)
        at += count
        chosen = np.flatnonzero(work.become >= 0)
        scored = work if embeddings is None or not count else _score(work, chosen, embeddings[own], sources)
        done.append(
            replace(
                scored,
                crops=results[own],
                masks=None if masks is None else masks[own],
                seconds=(work.seconds[0], seconds_each * count),
            )
        )
    return done


def _score(work: Work, chosen: Ints, embedding: Floats, sources: Sequence[Identity]) -> Work:
    full = np.full((len(work.faces), embedding.shape[1]), np.nan, np.float32)
    full[chosen] = embedding
    owner = np.full(len(work.faces), np.nan, np.float32)
    if work.faces.embedding.shape[1] == embedding.shape[1]:
        owner[chosen] = (work.faces.embedding[chosen] * embedding).sum(axis=1)
    return replace(work, source_after=cosines_to_sources(full, chosen, work.become, sources), owner_after=owner)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
