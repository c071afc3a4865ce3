"""`simswap export checkpoint.safetensors generator.onnx`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from pipeline.config import ExportConfig
from pipeline.settings import load_settings


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Write a generator as ONNX, after checking it against torch."""
    (source, target), overrides = split_words(words, ["IN.safetensors", "OUT.onnx"])
    settings = load_settings(ExportConfig, None, overrides)

    from pipeline.model.export import export_onnx

    facts = export_onnx(source, None if dry_run else target, settings.tolerance)
    return {"command": "export", "status": "planned" if dry_run else "done", "onnx": target, **facts}


if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
