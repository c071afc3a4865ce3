"""Training on one GPU, without Ray: how near to the card's own speed, and whole runs.

    python -m benchmarks.training speed [--preset 224] [--batch 16 64] [--ways eager search+compile] [--models PACK]
        [--profile FILE]
    python -m benchmarks.training run CONFIG.yaml data=SET output=RUN models=PACK … [--loaders 12] [--seconds 400]

`speed` times the trainer's own step (batches of noise, identity encoder included, feeding not), and compares it with a
large bfloat16 matrix product on the same card. A GFLOP is 2 x MAC, gradient penalty counted once in its interval. `run`
is `simswap train` in this process: loaders make its batches, and it saves and ends after so many seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.presets import build, gigaflops, preset, samples, show
from benchmarks.stages import ASSETS
from pipeline.config import TrainConfig
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.packs import find_pack
from pipeline.model.device import find_device
from pipeline.model.generator import initialised
from pipeline.model.projected import build_discriminator
from pipeline.preparation.dataset import FaceDataset
from pipeline.settings import load_settings
from pipeline.training.build import build_step, check_fit, encoder_reference, landmark_network
from pipeline.training.local import LocalSession
from pipeline.training.loop import Report, train
from pipeline.training.split import split_identities
from pipeline.training.step import TrainingStep
from pipeline.training.validation import Validator

WAYS = {"compile": "trainer.compile=true", "graphs": "trainer.cuda_graphs=true", "eager": None, "search": None}
"""Ways to run a step, to be joined by +; `search` lets cuDNN choose its algorithms by trying them."""


def product_tflops(device: torch.device, side: int = 8192, repeats: int = 20) -> float:
    """TFLOP/s of a bfloat16 matrix product of random numbers: what the card can do."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds: list[float] = []
    for _ in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        torch.matmul(a, b)
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    return 2.0 * side**3 / statistics.median(seconds[3:]) / 1e12


def sample_gigaflops(settings: TrainConfig, device: torch.device) -> float:
    """GFLOP of one sample's step without the identity encoder."""
    step, penalty = build(settings, device), settings.losses
    interval = penalty.gradient_penalty_every if penalty.gradient_penalty else 0
    plain = gigaflops(lambda: step(samples(settings, 2, 1))) / 2
    return plain if not interval else plain + (gigaflops(lambda: step(samples(settings, 2, 0))) / 2 - plain) / interval


def seconds_a_step(step: TrainingStep, settings: TrainConfig, count: int, steps: int) -> float:
    """Mean over whole intervals of the penalty; kinds of steps that come for the first time are not timed."""
    interval = settings.losses.gradient_penalty_every
    batches = [samples(settings, count, n) for n in range(interval)]
    for batch in batches[:4]:
        step(batch)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for number in range(steps):
        step(batches[number % interval])  # its figures come back to the host, so it has ended
    return (time.perf_counter() - start) / steps


def speed(asked: argparse.Namespace) -> None:
    """A table: batch and way against samples a second and share of the card."""
    device = torch.device("cuda")
    card = product_tflops(device)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: bfloat16 product {card:.0f} TFLOP/s")
    plain = preset(asked.preset, 2, asked.set)
    encoder = IdentityEncoder(find_pack(asked.models).recogniser, plain.model.template)
    each = sample_gigaflops(plain, device) + _encoder_gigaflops(encoder, plain.model.crop_size)
    rows: list[dict[str, Any]] = []
    for way in asked.ways:
        for count in asked.batch:
            changes = [change for change in map(WAYS.__getitem__, way.split("+")) if change]
            changes.append(f"model.embedding_size={encoder.embedding_size}")
            settings = preset(asked.preset, count, [*asked.set, *changes])
            torch.backends.cudnn.benchmark = "search" in way
            try:
                seconds, peak = _measure(settings, encoder, device, count, asked)
            except (RuntimeError, torch.cuda.OutOfMemoryError) as error:
                print(f"{way}, batch {count}: {type(error).__name__}: {str(error)[:600]}", file=sys.stderr, flush=True)
                continue
            tflops = each * count / seconds / 1e3
            rows.append(
                {
                    "way": way, "batch": str(count), "ms a step": seconds * 1e3, "samples/s": count / seconds,
                    "TFLOP/s": tflops, "share of the card": f"{tflops / card:.1%}", "peak GB": peak,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    show(f"`{asked.preset}`: {each:.1f} GFLOP a sample", rows)


def _measure(
    settings: TrainConfig, encoder: IdentityEncoder, device: torch.device, count: int, asked: argparse.Namespace
) -> tuple[float, float]:
    torch.cuda.reset_peak_memory_stats()
    discriminator = build_discriminator(settings.discriminator, settings.model.crop_size, 0)
    networks = initialised(settings.model), discriminator, encoder
    step = TrainingStep(settings, *networks, device, landmark_network(settings))
    seconds = seconds_a_step(step, settings, count, asked.steps)
    if asked.profile:
        _profile(lambda: step(samples(settings, count, 1)), asked.profile)
    return seconds, torch.cuda.max_memory_allocated() / 1e9


def _encoder_gigaflops(encoder: IdentityEncoder, side: int) -> float:
    crops = torch.rand(1, 3, side, side, requires_grad=True)
    return gigaflops(lambda: torch.autograd.backward(encoder(crops).sum()))


def _profile(work: Callable[[], object], path: str) -> None:
    """Where a step's time on the card goes, appended to a file."""
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as seen:
        work()
    with open(path, "a", encoding="utf-8") as file:
        file.write(seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=110))


class TimedSession(LocalSession):
    """Tells what it is told, and ends after some seconds."""

    def __init__(self, settings: TrainConfig, folder: Path, loaders: int, seconds: float) -> None:
        super().__init__(settings, folder, loaders)
        self._end = time.monotonic() + seconds

    def stop_requested(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end

    def report(self, report: Report, folder: Path | None) -> None:
        """A line for each report; all of a run's figures lie beside the checkpoints."""
        super().report(report, folder)
        told: dict[str, float] = {**(report.history[-1] if report.history else {}), **report.validation}
        print(json.dumps({"step": report.done, **{name: round(v, 4) for name, v in told.items()}}), flush=True)
        if folder is not None:
            every = {"history": [r for p in self.reports for r in p.history]}
            every["validations"] = [{"step": p.done, **p.validation} for p in self.reports if p.validation]
            (self._folder / "figures.json").write_text(json.dumps(every))


def run(words: Sequence[str], loaders: int, seconds: float) -> None:
    """Train here, from the last checkpoint in `output`."""
    settings = load_settings(TrainConfig, words[0], words[1:])
    torch.set_num_threads(settings.workers.threads)
    device = find_device("auto")
    session = TimedSession(settings, Path(settings.output), loaders, seconds)
    step, encoder = build_step(settings, device), encoder_reference(settings.models)
    dataset, model = FaceDataset(settings.data), settings.model
    check_fit(settings, dataset.header, encoder, dataset.header.embedding_size)
    held_out = split_identities(dataset.names, settings.validation)
    validator = Validator(
        dataset, held_out, settings.validation, settings.models, model.template, model.crop_size, device
    )
    train(settings, session, step, validator, encoder, {"device": device.type})


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    fast = what.add_parser("speed")
    fast.add_argument("--preset", default="224")
    fast.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    fast.add_argument("--ways", nargs="+", default=["eager", "search", "search+compile", "search+graphs"])
    fast.add_argument("--steps", type=int, default=32)
    fast.add_argument("--models", default=str(ASSETS / "models" / "buffalo_sc_dequant"))
    fast.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    fast.add_argument("--profile")
    whole = what.add_parser("run")
    whole.add_argument("words", nargs="+", metavar="CONFIG.yaml key=value")
    whole.add_argument("--loaders", type=int, default=12)
    whole.add_argument("--seconds", type=float, default=float("inf"))
    return parser.parse_args()


def main() -> int:
    """Measure, or train."""
    asked = arguments()
    if asked.what == "speed":
        speed(asked)
    else:
        run(asked.words, asked.loaders, asked.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
