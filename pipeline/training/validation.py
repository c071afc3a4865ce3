"""Looking at a generator while it trains: held-out people swapped with each other, judged, and shown in a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import Template, ValidationConfig
from pipeline.errors import DatasetError
from pipeline.evaluation.cast import choose_cast
from pipeline.evaluation.landmarks import LandmarkFinder
from pipeline.evaluation.metrics import (
    cosines,
    landmark_errors,
    mean_embeddings,
    mean_of,
    pose_errors,
    psnr,
    retrieval_accuracy,
    swap_score,
)
from pipeline.evaluation.pictures import Pixels, lay_out
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import find_pack
from pipeline.faces.pose import pose
from pipeline.model.generator import Generator
from pipeline.preparation.dataset import FaceDataset
from pipeline.types import Floats, Ints


def _nobody_asks(count: int) -> object:
    return count


@dataclass(frozen=True, slots=True)
class Validation:
    """What was seen.

    Attributes:
        metrics: figures by name; those that cannot be had (no face found, no landmarks asked for) are not there.

            - `validation/source_cosine`, `validation/owner_cosine`: mean cosine of result and source photograph, of
              result and target, by the judge. `validation/unswapped_source_cosine` is what the targets have themselves,
              `validation/same_person_cosine` what two photographs of one person have.
            - `validation/source_nearer`: part of the results that are nearer to their source than to their target.
            - `validation/retrieval`: part whose nearest among the mean embeddings of all held-out people is the source.
            - `validation/landmark_error`: mean distance to the target's landmarks, in distances of its eyes.
            - `validation/pose_error_degrees`: mean L2 of the differences of yaw, pitch and roll.
            - `validation/landmarks_found`: part of the results that a detector finds a face in.
            - `validation/changed`: mean absolute difference of result and target, 0..1. Near 0 nothing is swapped: a
              generator with a mask may have closed it.
            - `validation/self_psnr_db`: mean PSNR to the target where the source is the target's own person.
            - `validation/score`: 0..1, `swap_score` of these: identity moved and everything else kept.
        grid: [h, w, 3] u8 RGB: sources in the first row, targets in the first column, results where they meet.
    """

    metrics: dict[str, float]
    grid: Pixels


class Validator:
    """Swaps the same held-out people each time it is called. It holds their crops; the networks that judge are loaded.

    Args:
        dataset: the prepared set.
        held_out: [P] which of `dataset.names` were kept from training; at least one.
        settings: how many pairs, which judge.
        models: insightface pack that trains, for where no judge is set.
        template: alignment of the crops.
        crop_size: side S of the crops in pixels that the generator takes.
        device: where the networks run.

    Raises:
        ModelPackError: the judge cannot be used.
        DatasetError: the set holds crops of another size, damaged ones, or nobody to swap with.
    """

    def __init__(
        self,
        dataset: FaceDataset,
        held_out: NDArray[np.bool_],
        settings: ValidationConfig,
        models: str,
        template: Template,
        crop_size: int,
        device: torch.device,
    ) -> None:
        _check(dataset, held_out, crop_size)
        self._settings = settings
        self._device = device
        judge = settings.judge or models
        self._judge = IdentityEncoder(find_pack(judge).recogniser, template).to(device)
        self._finder = LandmarkFinder(judge) if settings.landmarks else None
        self._cast = choose_cast(dataset.identity, held_out, settings.pairs, settings.grid)
        self._stills = self._look_at(dataset)
        self._constants = self._measure_photographs()
        self._wanted = self._find(self._pixels(self._stills.crops(self._cast.target)))

    def __call__(self, generator: Generator, swapped: Callable[[int], object] = _nobody_asks) -> Validation:
        """Swap everybody and measure; the generator is left in the mode it was in.

        Args:
            generator: on the validator's device.
            swapped: is told after each batch how many of the pairs it had.
        """
        training = generator.training
        generator.eval()
        try:
            with torch.no_grad():
                metrics = {
                    **self._constants,
                    **self._measure_swaps(generator, swapped),
                    **self._measure_selves(generator),
                }
                grid = self._grid(generator)
        finally:
            generator.train(training)
        same = metrics.get("same_person_cosine")
        stranger, kept = metrics["unswapped_source_cosine"], metrics["self_psnr_db"]
        metrics["score"] = swap_score(metrics["source_cosine"], stranger, same, kept)
        return Validation({f"validation/{name}": value for name, value in metrics.items()}, grid)

    def _look_at(self, dataset: FaceDataset) -> _Stills:
        """Everybody's embedding, and the crops of those whose pixels are needed again, read shard by shard."""
        cast = self._cast
        shown = np.unique(np.concatenate([cast.target, cast.grid_targets, cast.grid_sources]))
        judged = np.unique(np.concatenate([cast.target, cast.source, cast.own, cast.gallery, shown]))
        kept, embeddings = [], []
        for rows in self._batches(len(judged)):
            crops = dataset.crops(judged[rows])
            embeddings.append(self._judged(self._pixels(crops)))
            kept.append(crops[torch.from_numpy(np.isin(judged[rows], shown))])
        drive = torch.from_numpy(np.array(dataset.embeddings[judged], np.float32))
        return _Stills(judged, np.concatenate(embeddings), drive, shown, torch.cat(kept))

    def _measure_photographs(self) -> dict[str, float]:
        """What no swap changes."""
        cast, stills = self._cast, self._stills
        unswapped = mean_of(cosines(stills.judged(cast.target), stills.judged(cast.source)))
        same = mean_of(cosines(stills.judged(cast.target), stills.judged(cast.own)), cast.target != cast.own)
        return _known({"unswapped_source_cosine": unswapped, "same_person_cosine": same})

    def _measure_swaps(self, generator: Generator, swapped: Callable[[int], object]) -> dict[str, float]:
        """Identity, landmarks and pose of the pairs of two people."""
        cast, stills = self._cast, self._stills
        embeddings, found, changed = [], [], []
        for target, result in self._swaps(generator, cast.target, cast.source):
            embeddings.append(self._judged(result))
            changed.append((result - target).abs().mean(dim=(1, 2, 3)))
            found.append(self._find(result))
            swapped(len(result))
        embedding = np.concatenate(embeddings)
        source = cosines(embedding, stills.judged(cast.source))
        owner = cosines(embedding, stills.judged(cast.target))
        gallery = mean_embeddings(stills.judged(cast.gallery), cast.gallery_person)
        return {
            "source_cosine": float(source.mean()),
            "owner_cosine": float(owner.mean()),
            "source_nearer": float((source > owner).mean()),
            "retrieval": retrieval_accuracy(embedding, gallery, cast.wanted),
            "changed": float(torch.cat(changed).mean()),
            **({} if self._finder is None else _compare(np.concatenate(found), self._wanted)),
        }

    def _measure_selves(self, generator: Generator) -> dict[str, float]:
        """What is left of a target that is swapped with itself."""
        target, first = np.unique(self._cast.target, return_index=True)
        pairs = self._swaps(generator, target, self._cast.own[first])
        return {"self_psnr_db": float(np.concatenate([psnr(result, target) for target, result in pairs]).mean())}

    def _grid(self, generator: Generator) -> Pixels:
        sources, targets = self._cast.grid_sources, self._cast.grid_targets
        pairs = self._swaps(generator, np.repeat(targets, len(sources)), np.tile(sources, len(targets)))
        results = [result for _, batch in pairs for result in batch.cpu()]
        head = [None, *self._pixels(self._stills.crops(sources))]
        rows = [
            [target, *results[n * len(sources) : (n + 1) * len(sources)]]
            for n, target in enumerate(self._pixels(self._stills.crops(targets)))
        ]
        return lay_out([head, *rows])

    def _swaps(self, generator: Generator, targets: Ints, sources: Ints) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of target crops and results, both [B, 3, S, S] RGB 0..1 on the device."""
        for rows in self._batches(len(targets)):
            target = self._pixels(self._stills.crops(targets[rows]))
            yield target, generator(target, self._stills.drive(sources[rows]).to(self._device)).float()

    def _judged(self, crops: Tensor) -> Floats:
        """[B, E] the judge's embeddings of [B, 3, S, S] crops."""
        with torch.no_grad():
            return np.asarray(self._judge(crops).cpu().numpy(), np.float32)

    def _find(self, crops: Tensor) -> Floats:
        """[B, 5, 2] landmarks of [B, 3, S, S] crops; NaN for those without a face, and where none are asked for."""
        return np.full((len(crops), 5, 2), np.nan, np.float32) if self._finder is None else self._finder(crops)

    def _pixels(self, crops: Tensor) -> Tensor:
        """[B, 3, S, S] u8 to RGB 0..1 on the device."""
        return crops.to(self._device).float() / 255.0

    def _batches(self, count: int) -> Iterator[slice]:
        size = self._settings.batch_size
        return (slice(start, start + size) for start in range(0, count, size))


class _Stills:
    """Photographs by their number in the set.

    Args:
        samples: [K] ascending, all of them.
        judged: [K, E] the judge's embeddings.
        drive: [K, E] the stored embeddings, which drive a generator.
        shown: [C] ascending, those whose pixels are kept.
        crops: [C, 3, S, S] u8 of these.
    """

    def __init__(self, samples: Ints, judged: Floats, drive: Tensor, shown: Ints, crops: Tensor) -> None:
        self._samples, self._judged, self._drive = samples, judged, drive
        self._shown, self._crops = shown, crops

    def judged(self, samples: Ints) -> Floats:
        """The judge's embeddings [n, E] of some photographs."""
        return np.asarray(self._judged[np.searchsorted(self._samples, samples)])

    def drive(self, samples: Ints) -> Tensor:
        """The stored embeddings [n, E] of some photographs."""
        return self._drive[torch.from_numpy(np.searchsorted(self._samples, samples))]

    def crops(self, samples: Ints) -> Tensor:
        """[n, 3, S, S] u8 of some photographs whose pixels were kept."""
        return self._crops[torch.from_numpy(np.searchsorted(self._shown, samples))]


def _check(dataset: FaceDataset, held_out: NDArray[np.bool_], crop_size: int) -> None:
    if len(dataset.names) < 2:
        raise DatasetError(
            dataset.folder, "holds one identity: nobody to swap with", "Prepare photographs of more people"
        )
    if not held_out.any():
        raise DatasetError(dataset.folder, "nobody is held out from training", "Set validation.identities to 1 or more")
    if dataset.header.crop_size != crop_size:
        problem = f"holds crops of {dataset.header.crop_size} px, the generator takes {crop_size}"
        raise DatasetError(dataset.folder, problem, f"Prepare with crop_size={crop_size}")


def _compare(found: Floats, wanted: Floats) -> dict[str, float]:
    """What became of landmarks and pose: [K, 5, 2] of results and of targets, both as the judge's networks see them."""
    both = np.isfinite(found).all(axis=(1, 2)) & np.isfinite(wanted).all(axis=(1, 2))
    figures = {
        "landmark_error": mean_of(landmark_errors(found[both], wanted[both])),
        "pose_error_degrees": mean_of(pose_errors(pose(found[both]), pose(wanted[both]))),
        "landmarks_found": float(np.isfinite(found).all(axis=(1, 2)).mean()),
    }
    return _known(figures)


def _known(figures: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}
