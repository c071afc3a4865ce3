"""A network that places the five landmarks of one face, in the layout of insightface's landmark networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.faces.landmarks import LANDMARK_SIDE
from pipeline.portrait_pack.face_views import FaceViews
from pipeline.portrait_pack.layers import basic, conv

POINTS = 5
CELL = 4
"""Pixels of the network's input to a cell of its heat maps."""

SPREAD = 1.0  # cells: standard deviation of the heat that is asked for
HEAT_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class LandmarkerRecipe:
    """How a landmark network is trained.

    Attributes:
        widths: channels at a quarter, an eighth and a sixteenth of the input's side.
        seed: of weights and views.
        scenes: how many, rendered once.
        scenes_seed: of the scenes.
        faces: in a step.
        steps: of the optimiser.
        learning_rate: at its peak.
        settled: share of the steps after which batch norms keep still.
    """

    widths: tuple[int, int, int]
    seed: int
    scenes: int = 2400
    scenes_seed: int = 4
    faces: int = 32
    steps: int = 5000
    learning_rate: float = 3e-3
    settled: float = 0.5


PORTRAITS = LandmarkerRecipe(widths=(16, 32, 64), seed=46)
JUDGE = LandmarkerRecipe(widths=(24, 48, 64), seed=45)


class Landmarker(nn.Module):
    """Heat maps, one a landmark, by an hourglass: what is far says which feature it is, what is near says where.

    A landmark is the mean of its heat (integral regression, Sun et al. 2018, arXiv:1711.08229), finer than a cell.
    """

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        near, middle, far = widths
        self.enter = nn.Sequential(nn.AvgPool2d(2), *conv(3, near, 3, 2), nn.PReLU(near), basic(near), nn.PReLU(near))
        self.down = nn.Sequential(*conv(near, middle, 3, 2), nn.PReLU(middle), basic(middle), nn.PReLU(middle))
        self.deep = nn.Sequential(
            *conv(middle, far, 3, 2), nn.PReLU(far), basic(far), nn.PReLU(far), basic(far), nn.PReLU(far),
            *conv(far, middle, 1), nn.Upsample(scale_factor=2),
        )  # fmt: skip
        self.up = nn.Sequential(basic(middle), nn.PReLU(middle), *conv(middle, near, 1), nn.Upsample(scale_factor=2))
        self.maps = nn.Sequential(basic(near), nn.PReLU(near), nn.Conv2d(near, POINTS, 1))
        self.grid: Tensor
        self.register_buffer("grid", cell_places(), persistent=False)

    def heat(self, pixels: Tensor) -> Tensor:
        """[B, 3, 192, 192] in -1..1 to logits [B, 5, 48 * 48] over the cells."""
        near = self.enter(pixels)
        middle = self.down(near)
        maps: Tensor = self.maps(near + self.up(middle + self.deep(middle)))
        return maps.float().flatten(2)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, 192, 192] in -1..1 to [B, 10]: x, y of each landmark, -1..1 over the picture as insightface has it."""
        return self.places(self.heat(pixels))

    def places(self, heat: Tensor) -> Tensor:
        """Logits [B, 5, 48 * 48] to [B, 10]."""
        means: Tensor = heat.softmax(2) @ self.grid
        return means.flatten(1)


def cell_places() -> Tensor:
    """[48 * 48, 2] x, y of the cells' middles; insightface turns v into pixel (v + 1) * 96."""
    centres = (torch.arange(LANDMARK_SIDE // CELL) * CELL + (CELL - 1) / 2) / (LANDMARK_SIDE / 2) - 1
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([columns, rows], 2).reshape(-1, 2)


def landmarker_loss(landmarker: Landmarker, heat: Tensor, views: FaceViews) -> Tensor:
    """[] mean distance over the distance of the eyes, and that heat lies round its landmark and nowhere else."""
    wanted = views.landmarks / (LANDMARK_SIDE / 2) - 1
    eyes = (wanted[:, 1] - wanted[:, 0]).norm(dim=1)
    distance = (landmarker.places(heat).reshape(wanted.shape) - wanted).norm(dim=2)
    cell = CELL / (LANDMARK_SIDE / 2)
    near = -(torch.cdist(wanted, landmarker.grid.expand(len(wanted), -1, 2)) / (SPREAD * cell)).square() / 2
    cross_entropy = F.cross_entropy(heat.flatten(0, 1), near.flatten(0, 1).softmax(1))
    total: Tensor = (distance / eyes[:, None]).mean() + HEAT_WEIGHT * cross_entropy
    return total


def train_landmarker(
    recipe: LandmarkerRecipe, views: Iterator[FaceViews], report: Callable[[int, float], None]
) -> Landmarker:
    """The trained network, in eval mode.

    Args:
        recipe: what to train and how.
        views: one batch a step.
        report: hears of each step's number and loss.
    """
    torch.manual_seed(recipe.seed)
    landmarker = Landmarker(recipe.widths)
    landmarker.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(landmarker.parameters(), recipe.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.08)
    for step, batch in enumerate(views):
        settled = step >= recipe.settled * recipe.steps
        landmarker.train(not settled)
        optimiser.zero_grad(set_to_none=True)
        pixels = ((batch.pixels.float() - 127.5) / 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=not settled):
            heat = landmarker.heat(pixels)
        loss = landmarker_loss(landmarker, heat, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(landmarker.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        report(step, loss.item())
    return landmarker.eval()
