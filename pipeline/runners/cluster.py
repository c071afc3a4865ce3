"""The Ray that a job runs on: a running cluster, or one of our own; checked for room before anything waits for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.exceptions import ExecutionTimeoutError
from ray.data.read_api import from_blocks
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import PoolConfig, RayConfig
from pipeline.errors import ConfigError, FatalError
from pipeline.runners.progress import warn
from pipeline.runners.stopping import sigterm_interrupts

_REST_S = 0.02
_STARTS = 3
_TOKEN = Path("~/.ray/auth_token")


class Needs(NamedTuple):
    """What one group of workers reserves.

    Attributes:
        workers: how many.
        cpus: each.
        gpus: each.
    """

    workers: int
    cpus: float
    gpus: float


def pool_needs(pool: PoolConfig) -> Needs:
    """What a pool reserves."""
    return Needs(pool.workers, pool.cpus, pool.gpus)


def start_ray(settings: RayConfig, needs: Mapping[str, Needs]) -> None:
    """Connect, or start an embedded Ray, check that the job has room in it, and set Ray Data up.

    Args:
        settings: which Ray.
        needs: what each group of workers reserves, by the section of the settings that says so.

    Raises:
        ConfigError: an embedded Ray cannot hold the groups; a running cluster may grow and gets a warning.
    """
    if not ray.is_initialized():
        _init(settings)
    _check_capacity(settings, needs)
    use_ray_data(settings)


@contextmanager
def ray_data_job(
    command: str, settings: RayConfig, needs: Mapping[str, Needs], longest_s: float = 0.0
) -> Iterator[None]:
    """A Ray for a job over a dataset, a running one or our own; what ends the job comes out as an error of ours.

    Args:
        command: the job's name, for errors.
        settings: which Ray.
        needs: as `start_ray`.
        longest_s: what one step may take; the job does not give up before twice that.

    Raises:
        FatalError: the job does not fit, or a worker failed for more than one input's sake.
    """
    started = not ray.is_initialized()
    try:
        start_ray(settings, needs)
        context = DataContext.get_current()
        context.execution_no_progress_timeout_s = max(settings.no_progress_timeout_s, int(2 * longest_s))
        with sigterm_interrupts():  # once more: a Ray that starts puts a handler of its own in the place of ours
            yield
    except (RayError, ExecutionTimeoutError) as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, FatalError):
            raise cause from error
        said = (str(cause).strip().splitlines() or [""])[0][:300]
        mend = "Run the same command again: what has a receipt is not done again"
        raise FatalError(command, f"a worker failed ({type(cause).__name__}: {said})", mend) from error
    finally:
        if started:
            ray.shutdown()


def dataset_of(tables: Sequence[pa.Table]) -> Dataset:
    """A dataset with a block for each table.

    `ray.data.from_arrow` would start a task for each, to count its rows: two workers, which nobody needs afterwards,
    and CPUs that may not be free.
    """
    return from_blocks(list(tables))


def in_pool(dataset: Dataset, stage: type, plan: Any, pool: PoolConfig, num_blocks: int, *further: Any) -> Dataset:
    """A dataset through a stage on a pool of its own.

    Args:
        dataset: of `num_blocks` blocks.
        stage: made from the plan on each worker; takes and gives Arrow tables.
        plan: of the job; small.
        pool: its workers.
        num_blocks: more workers than that would have nothing to do.
        further: what else the stage is made from.
    """
    return dataset.map_batches(
        stage,
        fn_constructor_args=(plan, *further),
        batch_size=pool.items,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(pool.workers, num_blocks)),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
    )


class Unhurried(ExecutionCallback):  # type: ignore[misc]
    """Lets Ray Data's scheduling loop rest between its rounds.

    Where a consumer is slower than the stages before it, results are always ready and may not be taken yet; the loop
    then never waits. It took two thirds of a core from the training that it fed, and the interpreter's lock with it.
    """

    def on_execution_step(self, executor: object) -> None:
        """Called after each round."""
        time.sleep(_REST_S)


def job_actor(kind: type, *arguments: object) -> Any:
    """An actor on this node, which no other node takes along; where its process dies one begun anew goes on."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(kind).remote(*arguments)


def use_ray_data(settings: RayConfig) -> None:
    """Quiet, in order, and not waiting for ever, in this process."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.use_datasource_v2 = False
    context.execution_no_progress_timeout_s = settings.no_progress_timeout_s
    context.custom_execution_callback_classes = [Unhurried]


def _init(settings: RayConfig) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if settings.address is not None:
        ray.init(address=settings.address, **quiet)
        return
    size = settings.object_store_bytes
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init("local", num_cpus=settings.num_cpus, include_dashboard=False, object_store_memory=size, **quiet)
            break
        except Exception as error:
            if type(error) is not Exception:  # Ray raises the base class itself where its own start takes over 30 s
                raise
            ray.shutdown()
            if attempt == _STARTS:
                mend = "Is the machine overloaded? Run the same command"
                raise FatalError("ray", f"did not start ({error})", mend) from error
            warn("Ray did not start within its 30 s; once more")
    with suppress(OSError):  # Ray writes the token that it makes so that every user of the machine can read it
        _TOKEN.expanduser().chmod(0o600)


def _check_capacity(settings: RayConfig, needs: Mapping[str, Needs]) -> None:
    """Ray would wait without a word for what is not there; an embedded one for ever, a cluster may grow."""
    have = ray.cluster_resources()
    for kind, resource in (("cpus", "CPU"), ("gpus", "GPU")):
        need = sum(group.workers * getattr(group, kind) for group in needs.values())
        if need > have.get(resource, 0.0):
            asked = ", ".join(f"{name} {g.workers} x {getattr(g, kind):g}" for name, g in needs.items())
            problem = f"the job reserves {need:g} {resource}s ({asked}), the cluster has {have.get(resource, 0.0):g}"
            if settings.address is None:
                mend = " or ".join(f"{name}.{kind}" for name in needs)
                raise ConfigError("workers", problem, f"Lower {mend} or the number of workers")
            warn(f"{problem}; waiting for it to grow")
