"""What every training preset costs: weights, arithmetic, memory and time of one sample's training step.

    python -m benchmarks.presets [--only NAME ...] [--device cuda] [--batch N] [--threads N] [--set key=value ...]
        [--models PACK] [--json FILE]

The step is the trainer's own, at the preset's precision and with its activation checkpointing, `--batch` samples at
once, in a process of its own for each preset. GFLOP are 2 x MAC of what ran, recomputation included; the gradient
penalty counts with the steps that have none. A stand-in that costs nothing is the identity encoder; a pack given by
`--models` gets a line of its own. Memory is the growth of the process on the CPU, torch's own peak on CUDA. Time is the
clock's; of one CPU thread it is the process's own, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.stages import ASSETS
from pipeline.config import TrainConfig
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import find_pack
from pipeline.model.generator import Generator, initialised
from pipeline.model.projected import build_discriminator
from pipeline.settings import load_settings
from pipeline.training.batches import Batch
from pipeline.training.step import TrainingStep

CONFIGS = Path(__file__).resolve().parents[1] / "jobs" / "configs"


class Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts floating-point operations by torch's own formulas.

    torch's `FlopCounterMode` also follows modules, which it cannot do through the gradient of a gradient.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and count it."""
        output = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=output)
        return output


class FreeEncoder(nn.Module):
    """Embeddings of the right length and gradient that cost nothing: mean colours, tiled."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self._size = embedding_size

    def forward(self, crops: Tensor) -> Tensor:
        """[B, 3, S, S] to [B, E] of length one."""
        colours = crops.mean(dim=(2, 3))
        return F.normalize(colours.repeat(1, self._size // 3 + 1)[:, : self._size], dim=1)


def preset(name: str, batch: int, changes: Sequence[str]) -> TrainConfig:
    """Settings of a preset for one step of a few samples in one pass, in this process."""
    always = [f"trainer.global_batch_size={batch}", "trainer.micro_batch_size=null", "data=-", "output=-", "models=-"]
    return load_settings(TrainConfig, str(CONFIGS / f"train-{name}.yaml"), [*always, *changes])


def build(settings: TrainConfig, device: torch.device) -> TrainingStep:
    """The step of a preset behind a free encoder."""
    discriminator = build_discriminator(settings.discriminator, settings.model.crop_size, 0)
    encoder = cast(IdentityEncoder, FreeEncoder(settings.model.embedding_size))
    return TrainingStep(settings, initialised(settings.model), discriminator, encoder, device)


def samples(settings: TrainConfig, count: int, step: int) -> Batch:
    """A batch of noise for a step; even ones pair people with themselves."""
    size, model = settings.model.crop_size, settings.model
    target = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    source = F.normalize(torch.randn(count, model.embedding_size))
    same = step % settings.feed.same_identity_every == 0
    return Batch(step, target, target, source, torch.zeros_like(source), torch.rand(count), same)


def peak_mb(device: torch.device) -> float:
    """Highest memory so far: of the GPU, else of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def timed(step: TrainingStep, batch: Batch) -> float:
    """Seconds of one step; its figures come back to the host, so it has ended."""
    own = step.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if own else time.perf_counter
    start = clock()
    step(batch)
    return clock() - start


def gigaflops(work: Callable[[], object]) -> float:
    """GFLOP of a call, whatever it computes backward included."""
    counter = Flops()  # type: ignore[no-untyped-call]
    with counter:
        work()
    return float(counter.total) / 1e9


def forward_gigaflops(settings: TrainConfig) -> float:
    """GFLOP of the generator forward for one sample; nothing is computed."""
    size = settings.model.crop_size
    with torch.device("meta"), torch.no_grad():
        generator = Generator(settings.model)
        inputs = torch.empty(1, 3, size, size), torch.empty(1, settings.model.embedding_size)
        return gigaflops(lambda: generator(*inputs))


def measure(name: str, device_name: str, threads: int, batch: int, changes: Sequence[str]) -> dict[str, Any]:
    """One preset's row; runs in a process of its own, so that its memory is its own."""
    torch.set_num_threads(threads)
    device, settings = torch.device(device_name), preset(name, batch, changes)
    before = peak_mb(device) if device.type == "cpu" else 0.0
    step = build(settings, device)
    plain, penalised = 1, 0  # step numbers: the penalty comes with multiples of its interval
    interval = settings.losses.gradient_penalty_every if settings.losses.gradient_penalty else 0
    step(samples(settings, batch, plain))  # Adam's moments come with the first step
    seconds = timed(step, samples(settings, batch, plain))
    flops = gigaflops(lambda: step(samples(settings, batch, plain))) / batch
    if interval:
        seconds += (timed(step, samples(settings, batch, penalised)) - seconds) / interval
        flops += (gigaflops(lambda: step(samples(settings, batch, penalised))) / batch - flops) / interval
    generator, discriminator = (
        sum(p.numel() for p in n.parameters() if p.requires_grad) for n in (step.generator, step.discriminator)
    )
    return {
        "preset": name,
        "side px": settings.model.crop_size,
        "generator M": generator / 1e6,
        "discriminator M": discriminator / 1e6,
        "forward GFLOP": forward_gigaflops(settings),
        "step GFLOP": flops,
        "weights and Adam MB": 4 * (5 * generator + 4 * discriminator) / 1e6,  # weight, gradient, 2 moments, average
        "peak MB": peak_mb(device) - before,
        "s a sample": seconds / batch,
        "TFLOP/s": flops * batch / seconds / 1e3,
    }


def encoder_row(models: str) -> dict[str, Any]:
    """The identity encoder of a pack, for one result: forward, and back to its pixels."""
    encoder = IdentityEncoder(find_pack(models).recogniser, "arcface")
    crops = torch.rand(1, 3, 112, 112, requires_grad=True)
    there = gigaflops(lambda: encoder(crops))
    both = gigaflops(lambda: torch.autograd.backward(encoder(crops).sum()))
    return {"encoder": Path(models).name, "forward GFLOP": there, "forward and back GFLOP": both}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table as the documents have it."""
    print(f"\n{title}\n")
    cells = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    for line in cells:
        print(f"| {' | '.join(line)} |")


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    names = sorted(path.stem.removeprefix("train-") for path in CONFIGS.glob("train-*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=str(ASSETS / "models" / "buffalo_sc_dequant"))
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    """Measure every preset, and the encoder where there is one."""
    asked = arguments()
    machine = torch.cuda.get_device_name() if asked.device.startswith("cuda") else platform.processor()
    print(
        f"{machine or platform.machine()}, {asked.threads} threads, torch {torch.__version__}, batch {asked.batch}",
        *asked.set,
    )
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in asked.only:
            rows.append(pool.apply(measure, (name, asked.device, asked.threads, asked.batch, asked.set)))
            print(f"{name}: {rows[-1]['s a sample']:.2f} s a sample", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: (row["side px"], row["preset"]))
    show("One training step, per sample", rows)
    results = {"presets": rows}
    if Path(asked.models).is_dir():
        results["encoder"] = [encoder_row(asked.models)]
        show("The identity encoder of one result, not counted above", results["encoder"])
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
