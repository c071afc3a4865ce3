"""`simswap demo`: procedural portraits through the whole path; needs no download and no photograph."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import DemoConfig, SwapConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Make portraits, swap them, and say where the report is."""
    _, overrides = split_words(words, [])
    settings = load_settings(DemoConfig, None, overrides)

    if dry_run:
        return {"command": "demo", "status": "planned", **settings.model_dump(mode="json")}

    from pipeline.runners.demo import prepare_demo
    from pipeline.runners.progress import say
    from pipeline.runners.swapping import run_swap

    paths = [f"{name}={value}" for name, value in prepare_demo(settings).items()]
    tracking = f"tracking.uri=sqlite:///{(Path(settings.folder) / 'mlflow.db').resolve()}"
    config = str(Path(__file__).parent / "configs" / "demo.yaml")
    result = run_swap(load_settings(SwapConfig, config, [*paths, tracking]))
    note = "The generator of this demo is untrained: faces become noise in the right places. Real weights: README.md."
    say("report", message=f"open {result['report']}  ({note})")
    return {**result, "command": "demo", "note": note}


if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
