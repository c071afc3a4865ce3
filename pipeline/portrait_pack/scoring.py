"""How good the pack's networks are, on people whom they have never seen, measured on the exported files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.evaluation.landmarks import LandmarkFinder
from pipeline.evaluation.metrics import landmark_errors
from pipeline.faces.alignment import cut_crops
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import load_face_analysis
from pipeline.portrait_pack.album import NO_WEAR, Album, Wear, worn_crop
from pipeline.portrait_pack.face_views import MOVED, stirred
from pipeline.portrait_pack.scenes import Shot, make_scene
from pipeline.portrait_pack.views import close_up, softened
from pipeline.synthetic.people import Appearance, Attributes, Placement, Scene
from pipeline.synthetic.portraits import render, swap
from pipeline.types import Floats

SIDE = 88  # crops between the 64 px that the demo's generator makes and the encoder's 112


def embed(encoder: IdentityEncoder, crops: Sequence[torch.Tensor]) -> Floats:
    """[K, E] of K crops [3, S, S]."""
    with torch.inference_mode():
        parts = [encoder(torch.stack(list(crops[i : i + 32]))) for i in range(0, len(crops), 32)]
    return torch.cat(parts).numpy()


def verification(encoder: IdentityEncoder, album: Album, wear: Wear = NO_WEAR, side: int = SIDE) -> dict[str, float]:
    """Who is who among the photographs of an album.

    Returns:
        `tar`: share of pairs of one person above the cosine that one in a thousand pairs of two people reaches
        (`threshold`); `rank1`: share of photographs nearest to the first photograph of their own person; `same`,
        `other`: mean cosine of pairs of one person and of two.
    """
    random = np.random.default_rng(0)
    shots = zip(album.frames, album.landmarks, strict=True)
    vectors = embed(encoder, [worn_crop(frame, points, side, wear, random) for frame, points in shots])
    cosine, upper = vectors @ vectors.T, np.triu_indices(len(album), 1)
    same = (album.person[:, None] == album.person)[upper]
    own, others = cosine[upper][same], np.sort(cosine[upper][~same])
    threshold = others[int(len(others) * 0.999)]
    _, first = np.unique(album.person, return_index=True)
    probes = np.setdiff1d(np.arange(len(album)), first)
    found = album.person[first][(vectors[probes] @ vectors[first].T).argmax(1)]
    figures = {
        "tar": (own > threshold).mean(), "threshold": threshold, "rank1": (found == album.person[probes]).mean(),
        "same": own.mean(), "other": others.mean(),
    }  # fmt: skip
    return {name: round(float(value), 4) for name, value in figures.items()}


def teaching(encoder: IdentityEncoder, pairs: int, seed: int, side: int = 64) -> dict[str, float]:
    """Mean cosines that show what a generator is steered to.

    Returns:
        `own`: two photographs of one source person; `swapped`: a true swap and a photograph of its source;
        `owner`: a true swap and its target before; `strangers`: two people.
    """
    random = np.random.default_rng([seed, 9])
    crops: dict[str, list[torch.Tensor]] = {"photo": [], "other_photo": [], "target": [], "swapped": []}
    for _ in range(pairs):
        source, owner = Appearance.sample(random), Appearance.sample(random)
        for name in ("photo", "other_photo"):
            crops[name].append(_crop(_portrait(Appearance.sample(random).with_identity_of(source), random), side))
        target = _portrait(owner, random)
        crops["target"].append(_crop(target, side))
        crops["swapped"].append(_crop(swap(target.spec, 0, source), side))
    vectors = {name: embed(encoder, stack) for name, stack in crops.items()}

    def mean(one: str, other: str) -> float:
        return round(float((vectors[one] * vectors[other]).sum(1).mean()), 4)

    return {
        "own": mean("photo", "other_photo"), "swapped": mean("swapped", "photo"), "owner": mean("swapped", "target"),
        "strangers": mean("photo", "target"),
    }  # fmt: skip


def detection(pack: str, scenes: int, seed: int, close: bool = False, blur_px: float = 0.0) -> dict[str, float]:
    """How a detector does in insightface's hands.

    Args:
        pack: folder of the pack.
        scenes: how many pictures.
        seed: of the pictures.
        close: show one aligned crop of 64..112 px of each scene instead of the scene.
        blur_px: standard deviation of the blur of such a crop, in its pixels.

    Returns:
        `faces`: in all; `found`: share that was found, one find each; `false`: finds that are no face's; `median`,
        `p95`: distances from landmarks to where they are, over the distance between the eyes.
    """
    detector = load_face_analysis(pack, ["detection"], 1).models["detection"]
    random = np.random.default_rng([seed, 3])
    faces, false, errors = 0, 0, []
    for number in range(scenes):
        scene = make_scene(seed, number)
        shot = Shot(scene.frame, scene.box, scene.landmarks)
        if close and len(shot.boxes):
            shot = close_up(shot, int(random.integers(len(shot.boxes))), int(random.integers(64, 113)))
            shot = softened(shot, blur_px)
        finds = detector.detect(np.ascontiguousarray(shot.frame[:, :, ::-1]))[1]
        faces, hits = faces + len(shot.boxes), _landmark_errors(shot.landmarks, finds)
        false += len(finds) - len(hits)
        errors += hits
    spread = np.concatenate(errors) if errors else np.ones(1)
    return {
        "faces": faces, "found": round(len(errors) / max(faces, 1), 4), "false": false,
        "median": round(float(np.median(spread)), 4), "p95": round(float(np.quantile(spread, 0.95)), 4),
    }  # fmt: skip


def placing(pack: str, faces: int, seed: int, side: int = 64, network: bool = True) -> dict[str, float]:
    """How surely landmarks of aligned crops are placed by whoever judges swapped faces.

    Args:
        pack: folder of the pack.
        faces: how many.
        seed: of the scenes that they are from.
        side: of the crops, pixels.
        network: by the pack's landmark network, if it has one; otherwise by the detector alone.

    Returns:
        `found`: share of the crops; mean distances over that between the eyes: `sharp`; `soft`, blurred by 0.6 px as
        what a small generator draws; `moved`, single features moved by 6 % of that distance. `follows`: how far a
        landmark is found to move where it moved by one.
    """
    random, finder = np.random.default_rng([seed, 4]), LandmarkFinder(pack, network=network)
    shots: dict[str, list[Shot]] = {"sharp": [], "soft": [], "moved": []}
    number = 0
    while len(shots["sharp"]) < faces:
        scene, number = make_scene(seed, number), number + 1
        if len(scene.box):
            whole = Shot(scene.frame, scene.box, scene.landmarks)
            shot = close_up(whole, int(random.integers(len(scene.box))), side)
            moved = stirred(shot, np.asarray(MOVED * random.standard_normal((5, 2)), np.float32))
            for kind, one in zip(shots, (shot, softened(shot, 0.6), moved), strict=True):
                shots[kind].append(one)
    found = {kind: finder(_pixels(these)) for kind, these in shots.items()}
    true = {kind: np.concatenate([shot.landmarks for shot in these]) for kind, these in shots.items()}
    seen = np.isfinite(np.stack(list(found.values()))).all((0, 2, 3))
    way, seen_way = ((points["moved"] - points["sharp"])[seen] for points in (true, found))
    figures = {kind: landmark_errors(found[kind][seen], true[kind][seen]).mean() for kind in shots}
    figures |= {"found": seen.mean(), "follows": (way * seen_way).sum() / np.square(way).sum()}
    return {name: round(float(value), 4) for name, value in figures.items()}


def _pixels(shots: Sequence[Shot]) -> torch.Tensor:
    return torch.from_numpy(np.stack([shot.frame for shot in shots])).permute(0, 3, 1, 2).float() / 255


def _landmark_errors(true: Floats, finds: Floats) -> list[Floats]:
    """[5] errors over the distance between the eyes, for each true face with a find of its own near it."""
    errors, left = [], list(finds)
    for landmarks in true:
        if not left:
            break
        eyes = max(float(np.linalg.norm(landmarks[1] - landmarks[0])), 1e-6)
        distances = np.stack([np.linalg.norm(find - landmarks, axis=1) for find in left]) / eyes
        nearest = int(distances.mean(1).argmin())
        if distances[nearest].mean() < 0.5:
            errors.append(distances[nearest])
            left.pop(nearest)
    return errors


def _portrait(who: Appearance, random: np.random.Generator) -> Scene:
    where = Placement(100, 100, random.uniform(100, 140))
    return render([(who, Attributes.sample(random), where)], 200, 200, int(random.integers(1 << 31)))


def _crop(scene: Scene, side: int) -> torch.Tensor:
    return cut_crops(torch.from_numpy(scene.frame).permute(2, 0, 1), scene.landmarks, "arcface", side).pixels[0]
