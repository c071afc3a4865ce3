"""A face detector with five landmarks, in the output layout of insightface's SCRFD, and the losses that train it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.portrait_pack.layers import basic, conv
from pipeline.portrait_pack.views import Views

STRIDES = (8, 16, 32)
ANCHORS = 2
RANGES = (((15.0, 27.0), (27.0, 48.0)), ((48.0, 80.0), (80.0, 135.0)), ((135.0, 230.0), (230.0, 400.0)))
"""Per stride and anchor: heights of the faces, in pixels of the network's input, that it answers for."""

OVERLAP = 1.12  # a face this factor beyond a range belongs to that range too
MEAN_BOX = (0.45, 0.47, 0.45, 0.53)
MEAN_LANDMARKS = (-0.17, -0.13, 0.17, -0.13, 0.0, 0.08, -0.13, 0.23, 0.13, 0.23)
"""Of an upright face, from the middle of its box, over its height: where learning starts."""

RADIUS = 1.0  # cells within this many strides of the middle of a face answer for it
BOX_WEIGHT, LANDMARK_WEIGHT = 6.0, 40.0
ROUNDING_PX = 0.4  # insightface rounds the sides of the picture that it fits: small faces are placed less surely
SHARPNESS = 0.02  # landmark error over a face's height that lowers the target of the score by 63 % of what it can lose
FLOOR = 0.6


@dataclass(frozen=True, slots=True)
class DetectorRecipe:
    """How the detector is trained.

    Attributes:
        scenes: how many, rendered once.
        scenes_seed: of the scenes.
        seed: of weights and views.
        views: in a step: side of the picture in pixels, how many. Small ones teach landmarks at little cost.
        steps: of the optimiser.
        learning_rate: at its peak.
        settled: share of the steps after which batch norms keep still.
    """

    scenes: int = 2400
    scenes_seed: int = 4
    seed: int = 44
    views: tuple[tuple[int, int], ...] = ((128, 48), (256, 10), (448, 3), (640, 2))
    steps: int = 5000
    learning_rate: float = 3e-3
    settled: float = 0.4


DETECTOR = DetectorRecipe()


class Head(nn.Module):
    """Scores, boxes and landmarks at one stride, for `ANCHORS` ranges of face heights."""

    def __init__(self, width: int, stride: int, ranges: tuple[tuple[float, float], ...]) -> None:
        super().__init__()
        self.tower = nn.Sequential(*conv(width, width, 3), nn.PReLU(width))
        self.score = nn.Conv2d(width, ANCHORS, 1)
        self.box = nn.Conv2d(width, ANCHORS * 4, 1)
        self.landmarks = nn.Conv2d(width, ANCHORS * 10, 1)
        heights = torch.tensor([(low * high) ** 0.5 / stride for low, high in ranges])
        with torch.no_grad():
            nn.init.constant_(self.score.bias, -4.0)  # type: ignore[arg-type]
            for layer, mean in ((self.box, MEAN_BOX), (self.landmarks, MEAN_LANDMARKS)):
                layer.weight.mul_(0.1)
                layer.bias.copy_((heights[:, None] * torch.tensor(mean)).flatten())  # type: ignore[union-attr]

    def parts(self) -> list[tuple[str, nn.Conv2d, int]]:
        """Kind, layer and values per anchor of each output."""
        return [("score", self.score, 1), ("box", self.box, 4), ("landmarks", self.landmarks, 10)]

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """[B, C, h, w] to logits [B, K, 1], boxes [B, K, 4] and landmarks [B, K, 10], in strides; K = 2 h w."""
        tower = self.tower(features).float()
        with torch.autocast("cpu", enabled=False):
            maps = [(layer(tower), width) for _, layer, width in self.parts()]
        return tuple(m.permute(0, 2, 3, 1).reshape(len(m), -1, width) for m, width in maps)


class Detector(nn.Module):
    """A plain residual network, one head at each stride. Deep layers see large faces, so nothing flows back up."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([
            nn.Sequential(
                *conv(3, 16, 3, 2), nn.PReLU(16), *conv(16, 24, 3, 2), nn.PReLU(24),
                *conv(24, 32, 3, 2), nn.PReLU(32), basic(32), nn.PReLU(32), basic(32), nn.PReLU(32),
            ),
            nn.Sequential(*conv(32, 64, 3, 2), nn.PReLU(64), basic(64), nn.PReLU(64), basic(64), nn.PReLU(64)),
            nn.Sequential(*conv(64, 96, 3, 2), nn.PReLU(96), basic(96), nn.PReLU(96)),
        ])  # fmt: skip
        widths = (32, 64, 96)
        self.heads = nn.ModuleList(map(Head, widths, STRIDES, RANGES))

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, ...]]:
        """[B, 3, H, W] in -1..1, sides divisible by 32, to what each head says."""
        outputs, x = [], pixels
        for stage, head in self.levels():
            x = stage(x)
            outputs.append(head(x))
        return outputs

    def levels(self) -> list[tuple[nn.Module, Head]]:
        """Stage and head of each stride."""
        return [(s, h) for s, h in zip(self.stages, self.heads, strict=True) if isinstance(h, Head)]


@dataclass(frozen=True, slots=True)
class Targets:
    """What one head should say about a batch.

    Attributes:
        positive: [B, K] cells that answer for a face.
        ignored: [B, K] cells of which nothing is asked.
        box: [B, K, 4] distances from the cell to left, top, right, bottom, strides.
        landmarks: [B, K, 10] offsets from the cell, strides.
        height: [B, K] of the face, strides.
    """

    positive: Tensor
    ignored: Tensor
    box: Tensor
    landmarks: Tensor
    height: Tensor


def assign(views: Views, level: int) -> Targets:
    """Who answers for whom at one stride: the cells at the middle of a face, with the anchor of its height.

    Ignored are the cells next to those, a face that is cut off, and one too small for any anchor. All other cells are
    to find nothing; a face beyond all ranges is left to insightface's other look, at 128 px.
    """
    stride, (_, _, height, width) = STRIDES[level], views.pixels.shape
    rows, columns = height // stride, width // stride
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), 2).flip(2).float()
    cells = grid.reshape(-1, 1, 2).expand(-1, ANCHORS, 2).reshape(-1, 2)  # [K, 2] x, y in strides
    smallest, largest = RANGES[0][0][0] / OVERLAP, RANGES[-1][-1][1] * OVERLAP
    low, high = torch.tensor(RANGES[level]).T[:, None, :].expand(2, rows * columns, ANCHORS).reshape(2, -1)
    boxes, points = views.boxes / stride, views.landmarks / stride
    middle, tall = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 3] - boxes[..., 1]  # [B, F, 2], [B, F]
    distance = torch.cdist(cells.expand(len(boxes), -1, 2), middle)  # [B, K, F]
    pixels_tall = tall[:, None, :] * stride
    fits = (pixels_tall > low[:, None] / OVERLAP) & (pixels_tall < high[:, None] * OVERLAP)
    claims = (distance < RADIUS) & fits & views.whole[:, None, :]
    next_to = (distance < 1.6 * RADIUS) & (pixels_tall > low[:, None] / 1.3) & (pixels_tall < high[:, None] * 1.3)
    unclear = ~views.whole[:, None, :] | (pixels_tall < smallest)
    around = (distance < 0.5 * tall[:, None, :]) & unclear & (pixels_tall > 0) & (pixels_tall < largest)
    face = torch.where(claims, distance, torch.inf).argmin(2)  # [B, K]

    def of_face(values: Tensor) -> Tensor:
        return values.gather(1, face[..., None].expand(-1, -1, values.shape[2]))

    box, own = of_face(boxes), of_face(points.flatten(2))
    distances = torch.cat([cells - box[..., :2], box[..., 2:] - cells], 2)
    positive = claims.any(2)
    ignored = ((next_to & (pixels_tall < largest)) | around).any(2) & ~positive
    return Targets(positive, ignored, distances, own - cells.repeat(1, 5), of_face(tall[..., None])[..., 0])


def head_loss(output: tuple[Tensor, ...], targets: Targets, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the cells of one head: of the score's loss, of box and landmark errors over the face's height.

    The score learns how good the cell's landmarks are (quality focal loss), so that of two finds of one face, at two
    cells or two scales of the picture, the better one wins.
    """
    logits, box, landmarks = output[0][..., 0], output[1], output[2]
    at = targets.positive
    tall = targets.height[at][:, None]
    box_error = ((box[at] - targets.box[at]).abs() / tall).mean(1)
    landmark_error = ((landmarks[at] - targets.landmarks[at]).abs() / tall).mean(1)
    wanted = torch.zeros_like(logits)
    error = landmark_error.detach() + ROUNDING_PX / (stride * tall[:, 0])
    wanted[at] = FLOOR + (1 - FLOOR) * torch.exp(-error / SHARPNESS)
    focus = (wanted - logits.sigmoid()).square().detach()
    score_loss = F.binary_cross_entropy_with_logits(logits, wanted, focus, reduction="none")
    return score_loss[~targets.ignored].sum(), box_error.sum(), landmark_error.sum()


def detector_loss(outputs: list[tuple[Tensor, ...]], views: Views) -> Tensor:
    """[] sum over the heads, each for its cells that answer for a face (and a few more: a head may have none)."""
    targets = [assign(views, level) for level in range(len(STRIDES))]
    parts = [
        torch.stack(head_loss(output, target, stride)) / (target.positive.sum() + 4)
        for output, target, stride in zip(outputs, targets, STRIDES, strict=True)
    ]
    score, box, landmarks = torch.stack(parts).sum(0)
    total: Tensor = score + BOX_WEIGHT * box + LANDMARK_WEIGHT * landmarks
    return total


def train_detector(
    steps: int, views: Iterator[list[Views]], seed: int, report: Callable[[int, float], None]
) -> Detector:
    """The trained detector, in eval mode.

    The later steps see batch norms as they will be in use: landmarks suffer from statistics that differ by the batch.

    Args:
        steps: of the optimiser.
        views: one list a step: batches of several input sizes.
        seed: of the weights.
        report: hears of each step's number and loss.
    """
    torch.manual_seed(seed)
    detector = Detector()
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(detector.parameters(), DETECTOR.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, DETECTOR.learning_rate, steps, pct_start=0.08)
    for step, batches in enumerate(views):
        settled = step >= DETECTOR.settled * steps
        detector.train(not settled)
        optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            pixels = ((batch.pixels.float() - 127.5) / 128).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=not settled):
                outputs = detector(pixels)
            loss = detector_loss(outputs, batch) / len(batches)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        report(step, total)
    return detector.eval()
