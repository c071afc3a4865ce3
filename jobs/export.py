"""`simswap export checkpoint.safetensors generator.onnx`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jobs.cli import main, split_words
from jobs.command import COPIES, STORES, Command
from pipeline.config import ExportConfig
from pipeline.settings import load_settings

COMMAND = Command(
    says="write a generator as ONNX and check it",
    settings=ExportConfig,
    words={"IN.safetensors": "checkpoint", "OUT.onnx": "file to write"},
    reads={"{IN.safetensors}": "the checkpoint"},
    writes={"{OUT.onnx}": "the network: target [B,3,S,S] and embedding [B,E] to result [B,3,S,S]"},
    environment={**STORES, **COPIES},
    result={
        "onnx": "the file",
        "bytes": "its size",
        "largest_difference_by_batch": "batch -> largest difference to torch, RGB 0..1",
        "model": "settings of the generator",
    },
)


def run(words: Sequence[str], dry_run: bool) -> dict[str, Any]:
    """Write a generator as ONNX, after checking it against torch."""
    (source, target), overrides = split_words(words, COMMAND.words)
    settings = load_settings(ExportConfig, None, overrides)

    from pipeline.model.export import export_onnx

    facts = export_onnx(source, None if dry_run else target, settings.tolerance)
    return {"command": "export", "status": "planned" if dry_run else "done", "onnx": target, **facts}


if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
