from __future__ import annotations

from pathlib import Path

from pipeline.config import SwapConfig
from pipeline.runners.planning import plan_job
from pipeline.settings import load_settings
from pipeline.swapping import Analyse, Finish, Swap
from pipeline.swapping.shards import Made, ShardState, assemble_shard, index_shard, read_records
from pipeline.swapping.shards.state import state_key
from tests.faults.jobs import SmallJob
from tests.outside import Folder


def test_a_shard_whose_worker_died_when_it_was_put_together_is_taken_as_it_is(tmp_path: Path) -> None:
    SmallJob.make_shards(tmp_path, 1, 3)
    job = plan_job(load_settings(SwapConfig, str(tmp_path / "swap.yaml"), []))
    plan, (shard,) = job.plan, job.todo
    analyse, swap, finish = Analyse(plan), Swap(plan), Finish(plan)
    left = index_shard(plan, shard).left
    made = [finish.make(work) for work in swap([analyse(file) for file in left])]
    state = ShardState(plan.output(), state_key(shard, plan.recipe))
    state.add([Made(file.number, *one) for file, one in zip(left, made, strict=True)])

    record = assemble_shard(plan, shard)
    assert (record.items, record.counts["statuses"]) == (3, {"done": 2, "failed": 1})
    assert read_records(plan.output()) == {"00000.tar": record}
    before = Folder(str(tmp_path / "out")).facts()
    state.add([Made(left[0].number, *made[0])])  # it died while it removed the parts
    assert assemble_shard(plan, shard) == record
    assert Folder(str(tmp_path / "out")).facts() == before
