"""A Ray cluster of several nodes on this machine, as a process of its own, to be lost node by node.

`python nodes.py NODES [DASHBOARD_PORT]`: NODES is a JSON list of what `Cluster.add_node` takes, the head first.
Prints a JSON line with the addresses; a line on stdin takes the last node away and is answered `lost`; ends with its
stdin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Nodes:
    """A cluster that runs.

    Attributes:
        address: for `ray.init`.
        dashboard: address of its job server; empty without one.
        session: folder with its logs and packages.
        metrics: what Prometheus reads of each node, the head first.
    """

    address: str
    dashboard: str
    session: str
    metrics: list[str]
    process: subprocess.Popen[str]

    def lose_one(self) -> None:
        """Take the last node away, as a machine that is switched off."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("lose\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "lost\n"


@contextmanager
def nodes(
    some: Sequence[Mapping[str, Any]], folder: Path, port: int = 0, environment: Mapping[str, str] | None = None
) -> Iterator[Nodes]:
    """A cluster of these nodes, the head first; `port` is its dashboard's, 0 for none."""
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps(list(some)), str(port)]
    log = open(folder / "cluster.log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | dict(environment or {}),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "cluster.log").read_text()[-3000:]
        yield Nodes(**json.loads(line), process=process)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
        log.close()


def main() -> None:
    """The cluster itself."""
    from ray.cluster_utils import Cluster

    head, *others = json.loads(sys.argv[1])
    port = int(sys.argv[2])
    served = {"include_dashboard": bool(port)} | ({"dashboard_port": port} if port else {})
    cluster = Cluster(initialize_head=True, head_node_args=head | served)
    workers = [cluster.add_node(**node) for node in others]
    cluster.wait_for_nodes()
    dashboard = f"http://{cluster.head_node.webui_url}" if port else ""
    facts = {
        "address": cluster.address,
        "dashboard": dashboard,
        "session": cluster.head_node.get_session_dir_path(),
        "metrics": [f"http://127.0.0.1:{node.metrics_export_port}/metrics" for node in [cluster.head_node, *workers]],
    }
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        cluster.remove_node(workers.pop(), allow_graceful=False)
        print("lost", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
