"""From nothing to the two packs: render, train, export, measure."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.faces.identity import IdentityEncoder
from pipeline.portrait_pack import pack_folder
from pipeline.portrait_pack.album import Wear, batches, load_album
from pipeline.portrait_pack.detector import DETECTOR, train_detector
from pipeline.portrait_pack.export import export_detector, export_landmarker, export_recogniser
from pipeline.portrait_pack.face_views import make_face_views
from pipeline.portrait_pack.landmarker import JUDGE as JUDGE_LANDMARKS
from pipeline.portrait_pack.landmarker import PORTRAITS as PORTRAIT_LANDMARKS
from pipeline.portrait_pack.landmarker import LandmarkerRecipe, train_landmarker
from pipeline.portrait_pack.recogniser import JUDGE, PORTRAITS, Recipe, train_recogniser
from pipeline.portrait_pack.scenes import load_scenes
from pipeline.portrait_pack.scoring import detection, placing, teaching, verification
from pipeline.portrait_pack.views import SOFT_PX, make_views, stream

DETECTOR_FILE, RECOGNISER_FILE, JUDGE_FILE = "det_portraits.onnx", "rec_portraits.onnx", "rec_judge.onnx"
LANDMARKS_FILE, JUDGE_LANDMARKS_FILE = "lmk_portraits.onnx", "lmk_judge.onnx"
UNSEEN_SEED, UNSEEN_PEOPLE, UNSEEN_PHOTOS = 2, 300, 6
"""The album that figures are measured on: nobody in it is in an album that was trained on."""

SWAPS, UNSEEN_SCENES = 200, 300
REPORT_EVERY = 50


def make_packs(
    output: Path, cache: Path, parts: Sequence[str], threads: int, processes: int, steps: int | None = None
) -> dict[str, Any]:
    """Write the chosen networks of both packs under `output`.

    Args:
        output: gets `portraits/` and `judge/`, each with the detector and its own recogniser and landmark network.
        cache: where rendered albums and scenes are kept.
        parts: of `recogniser`, `judge`, `detector`, `landmarks`, `judge_landmarks`.
        threads: of the training.
        processes: that render.
        steps: of each training, if not as the recipes say.

    Returns:
        The measured figures of each part.
    """
    torch.set_num_threads(threads)
    figures: dict[str, Any] = {}
    recipes = {"recogniser": (PORTRAITS, "portraits", RECOGNISER_FILE), "judge": (JUDGE, "judge", JUDGE_FILE)}
    for part, (recipe, pack, file) in recipes.items():
        if part in parts:
            ready = replace(recipe, steps=steps or recipe.steps)
            figures[part] = make_recogniser(ready, output / pack / file, cache, processes)
    if "detector" in parts:
        first = output / "portraits" / DETECTOR_FILE
        figures["detector"] = make_detector(steps or DETECTOR.steps, first, cache, processes)
        (output / "judge").mkdir(exist_ok=True)
        shutil.copyfile(first, output / "judge" / DETECTOR_FILE)  # insightface wants one in every folder
    landmarks = {
        "landmarks": (PORTRAIT_LANDMARKS, output / "portraits" / LANDMARKS_FILE),
        "judge_landmarks": (JUDGE_LANDMARKS, output / "judge" / JUDGE_LANDMARKS_FILE),
    }
    for part, (landmarker, path) in landmarks.items():
        if part in parts:
            ready_too = replace(landmarker, steps=steps or landmarker.steps)
            figures[part] = make_landmarker(ready_too, path, cache, processes)
    return figures


def make_recogniser(recipe: Recipe, path: Path, cache: Path, processes: int) -> dict[str, Any]:
    """Train and export one recogniser; its figures on people whom it has never seen."""
    album = load_album(cache, recipe.album_seed, recipe.people, recipe.photos, processes)
    feed = batches(album, recipe.steps, recipe.batch_size, recipe.wear, recipe.seed)
    export_recogniser(train_recogniser(recipe, feed, recipe.people, progress(path.name, recipe.steps)), path)
    encoder, unseen = IdentityEncoder(str(path), "arcface"), _unseen(cache, processes)
    return {
        "file": str(path),
        "clean": verification(encoder, unseen),
        "worn": verification(encoder, unseen, Wear()),
        "teaching": teaching(encoder, SWAPS, seed=77),
    }


def make_detector(steps: int, path: Path, cache: Path, processes: int) -> dict[str, Any]:
    """Train and export the detector; its figures on scenes that it has never seen."""
    scenes = load_scenes(cache, DETECTOR.scenes_seed, DETECTOR.scenes, processes)
    feed = stream(scenes, steps, partial(make_views, sides=DETECTOR.views, seed=DETECTOR.seed))
    export_detector(train_detector(steps, feed, DETECTOR.seed, progress(path.name, steps)), path)
    folder = str(path.parent)
    return {
        "file": str(path),
        "scenes": detection(folder, UNSEEN_SCENES, seed=UNSEEN_SEED),
        "crops": detection(folder, UNSEEN_SCENES, seed=UNSEEN_SEED, close=True),
        "soft_crops": detection(folder, UNSEEN_SCENES, seed=UNSEEN_SEED, close=True, blur_px=SOFT_PX),
    }


def make_landmarker(recipe: LandmarkerRecipe, path: Path, cache: Path, processes: int) -> dict[str, Any]:
    """Train and export one landmark network; its figures on faces that it has never seen, and the detector's."""
    scenes = load_scenes(cache, recipe.scenes_seed, recipe.scenes, processes)
    feed = stream(scenes, recipe.steps, partial(make_face_views, count=recipe.faces, seed=recipe.seed))
    export_landmarker(train_landmarker(recipe, feed, progress(path.name, recipe.steps)), path)
    if not (path.parent / DETECTOR_FILE).exists():  # it shows where the face is
        shutil.copyfile(Path(pack_folder("judge")) / DETECTOR_FILE, path.parent / DETECTOR_FILE)
    figures = {
        name: placing(str(path.parent), UNSEEN_SCENES, UNSEEN_SEED, network=own)
        for name, own in (("landmarker", True), ("detector", False))
    }
    return {"file": str(path), **figures}


def _unseen(cache: Path, processes: int) -> Any:
    return load_album(cache, UNSEEN_SEED, UNSEEN_PEOPLE, UNSEEN_PHOTOS, processes)


def progress(name: str, steps: int) -> Callable[[int, float], None]:
    """Says on stderr how a training goes: every 50th step, the mean loss since the last."""
    started, losses = time.monotonic(), list[float]()

    def hear(step: int, loss: float) -> None:
        losses.append(loss)
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            mean, seconds = sum(losses) / len(losses), time.monotonic() - started
            print(f"{name}: step {step + 1} of {steps}, loss {mean:.4f}, {seconds:.0f} s", file=sys.stderr)
            losses.clear()

    return hear
