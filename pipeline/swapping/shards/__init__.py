"""Shards as work: their images go through the same stages as files, and come back as a shard of the same name.

index -> (analyse, swap, finish: into parts) -> assemble, each over state in the output, so that a killed job goes on.
"""

from pipeline.swapping.shards.assemble import assemble_shard
from pipeline.swapping.shards.index import Index, index_shard
from pipeline.swapping.shards.record import Record, read_records
from pipeline.swapping.shards.state import Made, ShardState, forget_other_shards

__all__ = [
    "Index",
    "Made",
    "Record",
    "ShardState",
    "assemble_shard",
    "forget_other_shards",
    "index_shard",
    "read_records",
]
