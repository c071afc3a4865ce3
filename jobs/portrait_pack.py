"""`python -m jobs.portrait_pack OUTPUT`: train the packs for procedural portraits anew, as they are shipped."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

PARTS = ("recogniser", "judge", "detector", "landmarks", "judge_landmarks")


def main(words: list[str] | None = None) -> int:
    """Render, train, export, measure; progress on stderr, one JSON line of figures on stdout."""
    parser = argparse.ArgumentParser(prog="python -m jobs.portrait_pack", description=__doc__)
    parser.add_argument("output", type=Path, help="folder that gets portraits/ and judge/")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/portrait_pack"), help="where renders are kept (5 GB)")  # noqa: S108
    parser.add_argument("--threads", type=int, default=1, help="of the training; one more core cuts the batches")
    parser.add_argument("--processes", type=int, default=2, help="that render")
    parser.add_argument("--steps", type=int, help="of each training; the shipped packs took their recipes' own")
    chosen = parser.parse_args(words)

    from pipeline.portrait_pack.making import make_packs

    parts = chosen.only or list(PARTS)
    figures = make_packs(chosen.output, chosen.cache, parts, chosen.threads, chosen.processes, chosen.steps)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
