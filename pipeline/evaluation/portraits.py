"""The exact test: procedural people, whose true swap is known to the pixel.

Photographs cannot say what a perfect swap would have looked like; here it is rendered. A generator is compared with the
truth, and with what doing nothing would have scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.config.portraits import PortraitTestConfig
from pipeline.errors import CheckpointError
from pipeline.evaluation.landmarks import LandmarkFinder
from pipeline.evaluation.metrics import cosines, landmark_errors, psnr
from pipeline.evaluation.pictures import Pixels, lay_out
from pipeline.faces.alignment import apply, cut_crops, frame_to_crop
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import file_digest, find_pack
from pipeline.model.checkpoint import load_generator, read_header
from pipeline.model.device import find_device
from pipeline.synthetic.people import Appearance, Attributes, Placement, Scene
from pipeline.synthetic.portraits import render, swap
from pipeline.types import Floats

_SIDE = 160  # px of a photograph, as the training set's have


@dataclass(frozen=True, slots=True)
class Truths:
    """A batch of exact pairs. All crops are [B, 3, S, S] RGB 0..1, on the CPU.

    Attributes:
        target: crops of the targets.
        source: crops of one photograph of each source.
        swapped: the true swaps, cut where the targets were: aligned with a generator's results pixel by pixel.
        landmarks: [B, 5, 2] of the true swaps, crop pixels of the target's crop, exact.
        face: [B, 1, S, S] 1 inside the box of the target's face from forehead to chin.
    """

    target: Tensor
    source: Tensor
    swapped: Tensor
    landmarks: Floats
    face: Tensor


@dataclass(frozen=True, slots=True)
class PortraitTest:
    """What the test found.

    Attributes:
        figures: by name, see `summarise`.
        sheet: [h, w, 3] u8 RGB, a row a pair: target, source, result, true swap.
    """

    figures: dict[str, float]
    sheet: Pixels


def run_portrait_test(settings: PortraitTestConfig) -> PortraitTest:
    """Swap unseen procedural people and compare with the true swaps.

    Raises:
        CheckpointError: it cannot be used, or was trained with another recogniser than `models` holds.
        ModelPackError: a pack cannot be used.
    """
    torch.set_num_threads(settings.threads)
    header = read_header(settings.checkpoint)
    recogniser = find_pack(settings.models).recogniser
    if file_digest(recogniser) != header.encoder.digest:
        problem = f"was trained with identity encoder {header.encoder.name}, {settings.models} holds another"
        raise CheckpointError(settings.checkpoint, problem, "Set models to the pack that trained it")
    device = find_device(settings.device)
    generator = load_generator(settings.checkpoint).to(device)
    encoder = IdentityEncoder(recogniser, header.config.template).to(device)
    judge = Judge(settings.judge, header.config, device)
    seen: list[dict[str, Floats]] = []
    shown: list[list[Tensor | None]] = []
    for truths in exact_pairs(settings, header.config):
        with torch.inference_mode():
            result = generator(truths.target.to(device), encoder(truths.source.to(device))).cpu()
        seen.append(judge(truths, result))
        shown += [list(row) for row in zip(truths.target, truths.source, result, truths.swapped, strict=True)]
        del shown[settings.sheet_pairs :]
    columns = {name: np.concatenate([part[name] for part in seen]) for name in seen[0]}
    return PortraitTest(summarise(columns), lay_out(shown))


def exact_pairs(settings: PortraitTestConfig, model: ModelConfig) -> Iterator[Truths]:
    """The pairs of a test, a batch at a time; number n is the same whatever the batch."""
    for start in range(0, settings.pairs, settings.batch_size):
        numbers = range(start, min(start + settings.batch_size, settings.pairs))
        yield _joined([_exact_pair(settings.seed, number, model) for number in numbers])


class Judge:
    """Measures results against the truth.

    Args:
        models: insightface pack, name or folder.
        model: of the generator, for the crops' alignment.
        device: where the recogniser runs.
    """

    def __init__(self, models: str, model: ModelConfig, device: torch.device) -> None:
        self._encoder = IdentityEncoder(find_pack(models).recogniser, model.template).to(device)
        self._finder = LandmarkFinder(models)
        self._device = device

    def __call__(self, truths: Truths, result: Tensor) -> dict[str, Floats]:
        """Measure a batch of results [B, 3, S, S] RGB 0..1.

        Returns:
            Columns of [B]; NaN where a detector found no face.
        """
        target, source, after, true = (
            self._embed(crops) for crops in (truths.target, truths.source, result, truths.swapped)
        )
        found, true_found, unswapped = (self._finder(crops) for crops in (result, truths.swapped, truths.target))
        return {
            "source_cosine": cosines(after, source),
            "owner_cosine": cosines(after, target),
            "true_source_cosine": cosines(true, source),
            "true_owner_cosine": cosines(true, target),
            "landmark_error": landmark_errors(found, truths.landmarks),
            "landmark_floor": landmark_errors(true_found, truths.landmarks),
            "landmark_unswapped": landmark_errors(unswapped, truths.landmarks),
            "landmark_seen": landmark_errors(found, true_found),
            "landmark_seen_unswapped": landmark_errors(unswapped, true_found),
            "psnr": psnr(result, truths.swapped),
            "psnr_unswapped": psnr(truths.target, truths.swapped),
            "face_psnr": psnr(result, truths.swapped, truths.face),
            "face_psnr_unswapped": psnr(truths.target, truths.swapped, truths.face),
        }

    def _embed(self, crops: Tensor) -> Floats:
        with torch.inference_mode():
            return np.asarray(self._encoder(crops.to(self._device)).cpu().numpy(), np.float32)


def summarise(columns: dict[str, Floats]) -> dict[str, float]:
    """The figures of a test.

    Args:
        columns: of all pairs, as `Judge` gives them.

    Returns:
        `source_nearer` and `true_source_nearer`: part of the results, and of the true swaps, that the judge finds
        nearer to the source than to the target; mean cosines of both. `landmark_error_*`: of the results, in distances
        of the eyes, to the exact landmarks of the true swap; `landmark_floor_*`: the same of the true swap itself: the
        finder's own error; `landmark_unswapped_*`: of the target left as it is. `landmark_seen_*`: of the results, to
        the landmarks of the true swap as the finder sees them, where most of its own error cancels, and of the target
        left as it is. `landmarks_found`: part of the results with a face. `psnr_gain_db_*`: PSNR of result and true
        swap, less that of target and true swap; `face_psnr_gain_db_*`: inside the box of the face alone. What could not
        be measured is not there.
    """
    nearer = columns["source_cosine"] > columns["owner_cosine"]
    true_nearer = columns["true_source_cosine"] > columns["true_owner_cosine"]
    figures = {
        "source_nearer": float(nearer.mean()),
        "true_source_nearer": float(true_nearer.mean()),
        "landmarks_found": float(np.isfinite(columns["landmark_error"]).mean()),
    }
    names = ("source_cosine", "owner_cosine", "true_source_cosine", "true_owner_cosine", "psnr", "face_psnr")
    figures |= {f"{name}_mean": float(columns[name].mean()) for name in names}
    gains = {f"{name}_gain_db": columns[name] - columns[f"{name}_unswapped"] for name in ("psnr", "face_psnr")}
    spread = {name: values for name, values in columns.items() if name.startswith("landmark")} | gains
    for name, values in spread.items():
        found = values[np.isfinite(values)]
        if len(found):
            figures |= {f"{name}_median": float(np.median(found)), f"{name}_mean": float(found.mean())}
    return {name: round(value, 5) for name, value in figures.items()}


def _exact_pair(seed: int, number: int, model: ModelConfig) -> Truths:
    """Pair `number` of a seed: two people nobody else shares, a photograph of each, and the true swap."""
    random = np.random.default_rng([seed, number])
    owner, giver = Appearance.sample(random), Appearance.sample(random)
    target = _photograph(owner, random)
    source = _photograph(Appearance.sample(random).with_identity_of(giver), random)
    true = swap(target.spec, 0, giver)
    to_crop = frame_to_crop(target.landmarks, model.template, model.crop_size)
    left, top, right, bottom = target.box[0]
    corners = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]], np.float32)
    face = np.zeros((model.crop_size, model.crop_size), np.uint8)
    cv2.fillConvexPoly(face, np.rint(apply(to_crop, corners)[0]).astype(np.int32), 1)
    return Truths(
        target=_crop(target, target.landmarks, model),
        source=_crop(source, source.landmarks, model),
        swapped=_crop(true, target.landmarks, model),
        landmarks=apply(to_crop, true.landmarks),
        face=torch.from_numpy(face)[None, None].float(),
    )


def _photograph(who: Appearance, random: np.random.Generator) -> Scene:
    """One face, about as large and as far off the middle as in the photographs of `jobs.portraits`."""
    x, y = random.uniform(-4, 4, 2) + _SIDE / 2
    where = Placement(x, y, random.uniform(96, 118))
    return render([(who, Attributes.sample(random), where)], _SIDE, _SIDE, int(random.integers(1 << 31)))


def _crop(scene: Scene, landmarks: Floats, model: ModelConfig) -> Tensor:
    frame = torch.from_numpy(scene.frame).permute(2, 0, 1)
    return cut_crops(frame, landmarks, model.template, model.crop_size).pixels


def _joined(pairs: list[Truths]) -> Truths:
    return Truths(
        target=torch.cat([pair.target for pair in pairs]),
        source=torch.cat([pair.source for pair in pairs]),
        swapped=torch.cat([pair.swapped for pair in pairs]),
        landmarks=np.concatenate([pair.landmarks for pair in pairs]),
        face=torch.cat([pair.face for pair in pairs]),
    )
