"""How long a swap of many inputs takes, and what it costs, from a trial of some, whose receipts are the measurement.

A job takes its start (Ray, models), then as long as its slowest part for every input, then its end (receipts, report):

    seconds = start + items * max(stage seconds / workers of the stage, CPU seconds of all stages / cores) / share + end

`share` is what the trial reached of that bound: batches that wait for each other, and what the engine itself takes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import EstimateConfig, SwapConfig
from pipeline.errors import ConfigError
from pipeline.media.store import Store, store_at
from pipeline.runners.upkeep import job_of
from pipeline.swapping.receipts import ReceiptBook
from pipeline.swapping.shards.record import read_records
from pipeline.swapping.shards.reopen import receipts_in

STAGES = ("analyse", "swap", "finish")

_FEWEST = 20
_GOOD = 100


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial measured.

    Attributes:
        items: inputs that ended in it.
        seconds: of one worker for an input, by stage.
        start_s: until the first input had ended.
        item_s: from one input to the next, after that.
        end_s: after the last one.
    """

    items: int
    seconds: Mapping[str, float]
    start_s: float
    item_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Setup:
    """Who works.

    Attributes:
        workers: by stage.
        cores: that those without a GPU share.
        gpus: that each worker of a stage holds, by stage.
    """

    workers: Mapping[str, int]
    cores: float
    gpus: Mapping[str, float]

    def bound(self, seconds: Mapping[str, float]) -> tuple[float, str]:
        """Seconds an input takes at least, and what it is that takes them."""
        limits = {stage: seconds[stage] / self.workers[stage] for stage in STAGES}
        limits["cores"] = sum(seconds[stage] for stage in STAGES if not self.gpus[stage]) / self.cores
        slowest = max(limits, key=lambda name: limits[name])
        return max(limits[slowest], 1e-9), slowest


def estimate(output: str, settings: EstimateConfig) -> dict[str, Any]:
    """How long, with whom, and what it costs.

    Args:
        output: of a finished trial: a swap of some of the inputs with the settings that all of them will have.
        settings: how many inputs, in how long or by how many workers.

    Raises:
        ConfigError: no trial, one that is not finished, or one too small to tell.
    """
    store, job = store_at(output, settings.storage), job_of(output, settings.storage)
    trial = measured(store, job)
    swap = SwapConfig.model_validate(job["settings"])
    pools = {"analyse": swap.pools.analyse, "swap": swap.pools.swap, "finish": swap.pools.finish}
    gpus = {stage: pool.gpus for stage, pool in pools.items()}
    then = {stage: pool.workers for stage, pool in pools.items()}
    here = float(swap.ray.num_cpus or os.cpu_count() or 1) if swap.ray.address is None else float(sum(then.values()))
    share = min(Setup(then, here, gpus).bound(trial.seconds)[0] / trial.item_s, 1.0)

    seconds = {**trial.seconds, **({"swap": settings.swap_s} if settings.swap_s else {})}
    asked = {stage: getattr(settings, stage) for stage in STAGES}
    workers = {stage: asked[stage] or then[stage] for stage in STAGES}
    if settings.hours is not None:
        workers = _enough(settings, seconds, trial, share, asked)
    cores = settings.cores or (here if workers == then else _cores(workers, gpus))
    setup = Setup(workers, cores, gpus)
    item_s, slowest = setup.bound(seconds)
    whole = trial.start_s + settings.items * item_s / share + trial.end_s
    held = sum(workers[stage] * gpus[stage] for stage in STAGES)
    return {
        "command": "estimate",
        "status": "done",
        "items": settings.items,
        "seconds": round(whole, 1),
        "hours": round(whole / 3600, 3),
        "items_per_s": round(share / item_s, 4),
        "held_up_by": slowest,
        "workers": workers,
        "cores": cores,
        "gpus": held,
        "cost": round(whole / 3600 * (cores * settings.cpu_hour + held * settings.gpu_hour), 2),
        "trial": {
            "items": trial.items,
            "stage_s": {stage: round(value, 4) for stage, value in trial.seconds.items()},
            "start_s": round(trial.start_s, 1),
            "end_s": round(trial.end_s, 1),
            "share_of_bound": round(share, 3),
            "enough": trial.items >= _GOOD,
        },
    }


def measured(store: Store, job: Mapping[str, Any]) -> Trial:
    """What a finished job measured.

    Raises:
        ConfigError: it is not finished, was gone on with after a stop, or is too small.
    """
    if not job.get("finished") or not job.get("began"):
        raise ConfigError(store.address, "is no finished trial", "Let simswap swap do some inputs, and end")
    receipts = _receipts(store, job)
    at = np.sort(receipts.column("finished_at").to_numpy())
    if len(at) < _FEWEST:
        problem = f"{len(at)} inputs are too few to tell"
        raise ConfigError(store.address, problem, f"Let the trial do {_GOOD} or more")
    if at[0] < job["began"]:
        raise ConfigError(store.address, "the trial was interrupted", "Let another one do all its inputs at once")
    seconds = {stage: float(np.mean(receipts.column(f"{stage}_s").to_numpy())) for stage in STAGES}
    return Trial(
        len(at),
        seconds,
        float(at[0] - job["began"]),
        float(at[-1] - at[0]) / (len(at) - 1),
        float(job["ended"] - at[-1]),
    )


def _receipts(store: Store, job: Mapping[str, Any]) -> pa.Table:
    if job.get("layout") != "shards":
        return ReceiptBook(store).read(job["recipe"])
    records = [record for record in read_records(store).values() if record.recipe == job["recipe"]]
    return pa.concat_tables(receipts_in(store, record) for record in records)


def _enough(
    settings: EstimateConfig,
    seconds: Mapping[str, float],
    trial: Trial,
    share: float,
    asked: Mapping[str, int | None],
) -> dict[str, int]:
    """Workers that do it in the hours there are; those that are given stay."""
    left = float(settings.hours or 0) * 3600 - trial.start_s - trial.end_s
    if left <= 0:
        problem = f"starting and ending alone take {trial.start_s + trial.end_s:.0f} s"
        raise ConfigError(f"hours={settings.hours}", problem, "Give it more time")
    return {stage: asked[stage] or math.ceil(settings.items * seconds[stage] / share / left) for stage in STAGES}


def _cores(workers: Mapping[str, int], gpus: Mapping[str, float]) -> float:
    return float(max(1, sum(count for stage, count in workers.items() if not gpus[stage])))
