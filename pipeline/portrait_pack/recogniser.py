"""Two recognisers for procedural portraits, of different architectures, and the ArcFace loss that trains them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.portrait_pack.album import Batch, Wear
from pipeline.portrait_pack.layers import basic, conv

IDENTITY_PARAMETERS = 22
Report = Callable[[int, float], None]


def residual_network(embedding_size: int = 256) -> nn.Sequential:
    """The encoder to train against: plain residual blocks, PReLU, a depthwise convolution over the whole map.

    [B, 3, 112, 112] in -1..1 to [B, E]; 55 million multiplications.
    """
    return nn.Sequential(
        *conv(3, 24, 3, 2), nn.PReLU(24),
        *conv(24, 32, 3, 2), nn.PReLU(32), basic(32), nn.PReLU(32),
        *conv(32, 80, 3, 2), nn.PReLU(80), basic(80), nn.PReLU(80),
        *conv(80, 160, 3, 2), nn.PReLU(160),
        nn.Conv2d(160, 160, 7, groups=160, bias=False), nn.BatchNorm2d(160), nn.Flatten(),
        nn.Linear(160, embedding_size),
    )  # fmt: skip


def _separable(inside: int, outside: int, stride: int) -> list[nn.Module]:
    return [
        *conv(inside, inside, 3, stride, groups=inside), nn.ReLU(),
        *conv(inside, outside, 1), nn.ReLU(),
    ]  # fmt: skip


def separable_network(embedding_size: int = 128) -> nn.Sequential:
    """The judge: large first kernels, then depthwise separable convolutions without shortcuts, ReLU, a dense end.

    [B, 3, 112, 112] in -1..1 to [B, E]; 32 million multiplications.
    """
    return nn.Sequential(
        *conv(3, 32, 5, 2), nn.ReLU(),
        *conv(32, 48, 3, 2), nn.ReLU(),
        *_separable(48, 96, 1), *_separable(96, 128, 2),
        *_separable(128, 128, 1), *_separable(128, 192, 2), *_separable(192, 192, 1),
        *conv(192, 32, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 49, embedding_size),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a recogniser is trained.

    Attributes:
        network: makes the network; its embedding length.
        embedding_size: E.
        people: in its album.
        photos: of each.
        album_seed: whose album; two seeds share nobody.
        seed: of weights and batches.
        margin: of the ArcFace loss, radians.
        scale: of the ArcFace loss.
        regression: weight of reading the identity parameters off the embedding, next to the ArcFace loss.
        wear: what crops go through.
        batch_size: B.
        steps: of the optimiser.
        learning_rate: at its peak.
    """

    network: Callable[[int], nn.Sequential]
    embedding_size: int
    people: int
    photos: int
    album_seed: int
    seed: int
    margin: float
    scale: float
    regression: float
    wear: Wear
    batch_size: int
    steps: int
    learning_rate: float = 2e-3


PORTRAITS = Recipe(
    residual_network, 256, people=4000, photos=5, album_seed=1, seed=11,
    margin=0.35, scale=32.0, regression=8.0, wear=Wear(erase=0.15), batch_size=128, steps=1500,
)  # fmt: skip
JUDGE = Recipe(
    separable_network, 128, people=2000, photos=5, album_seed=3, seed=33,
    margin=0.25, scale=24.0, regression=4.0, wear=Wear(0.025, 1.3, 0.05, 0.3, 0.0), batch_size=128, steps=2600,
)  # fmt: skip


class ArcFaceHead(nn.Module):
    """Additive angular margin (ArcFace) over the people of an album, and a reading of their identity parameters.

    The margin grows from 0 over the first third of the training: with it from the start, a small network learns
    nothing for long.
    """

    def __init__(self, embedding_size: int, people: int, recipe: Recipe) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(people, embedding_size) * 0.1)
        self.reading = nn.Linear(embedding_size, IDENTITY_PARAMETERS)
        self.recipe = recipe

    def forward(self, embeddings: Tensor, who: Tensor, identity: Tensor, progress: float) -> Tensor:
        """[] loss of [B, E] embeddings of people [B] with identity parameters [B, 22]; `progress` is 0..1."""
        unit = F.normalize(embeddings)
        cosine = F.linear(unit, F.normalize(self.centres)).clamp(-1 + 1e-6, 1 - 1e-6)
        margin = self.recipe.margin * min(1.0, 3 * progress)
        own = cosine.gather(1, who[:, None])
        moved = own * math.cos(margin) - (1 - own * own).sqrt() * math.sin(margin)
        logits = self.recipe.scale * cosine.scatter(1, who[:, None], moved)
        read = self.reading(unit * math.sqrt(unit.shape[1]))
        return F.cross_entropy(logits, who) + self.recipe.regression * F.mse_loss(read, identity)


def scaled(pixels: Tensor) -> Tensor:
    """u8 pixels to -1..1, as insightface does."""
    return (pixels.float() - 127.5) / 127.5


def train_recogniser(recipe: Recipe, batches: Iterator[Batch], people: int, report: Report) -> nn.Sequential:
    """The trained network, in eval mode.

    Args:
        recipe: how.
        batches: one a step.
        people: in the batches.
        report: hears of each step's number and loss.
    """
    torch.manual_seed(recipe.seed)
    network = recipe.network(recipe.embedding_size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = ArcFaceHead(recipe.embedding_size, people, recipe)
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, recipe.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.1)
    for step, (crops, who, identity) in enumerate(batches):
        pixels = scaled(torch.from_numpy(crops)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = network(pixels)
        loss = head(embeddings.float(), torch.from_numpy(who), torch.from_numpy(identity), step / recipe.steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()
        schedule.step()
        report(step, loss.item())
    return network.eval()
