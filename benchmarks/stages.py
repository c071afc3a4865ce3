"""What every stage costs per face on one core, beside pasting over the full frame, in one run.

    python benchmarks/stages.py [--models PACK] [--photos FOLDER] [--repeats N] [--json FILE]

Faces are real photographs and a real pack where they are given (or lie in ../shared/assets), else procedural
portraits and a recogniser of the right shape. Medians over the repeats; ratios are to the first row of a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.config import AnalysisConfig, ImagesConfig, ModelConfig
from pipeline.faces.alignment import cut_crops
from pipeline.faces.analysis import FaceAnalyser
from pipeline.faces.blending import paste
from pipeline.faces.masks import soft_square
from pipeline.media.images import read_image, write_image
from pipeline.model.generator import Generator, initialised
from pipeline.types import Floats

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
FRAMES = {"1080p": (1080, 1920), "4K": (2160, 3840)}


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of one call, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def frame_with_face(height: int, width: int, face_px: float) -> tuple[Tensor, Floats]:
    """A textured frame [3, H, W] and the landmarks [1, 5, 2] of a face of that eye distance in its middle."""
    random = np.random.default_rng(0)
    low = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
    shape = np.array([[-0.5, 0], [0.5, 0], [0, 0.53], [-0.42, 1.1], [0.42, 1.1]]) * face_px
    turn = np.deg2rad(7)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    landmarks = shape @ rotation + (width / 2, height / 2)
    return torch.from_numpy(image).permute(2, 0, 1), landmarks[None].astype(np.float32)


def paste_full_frame(frame: Tensor, crop: Tensor, to_frame: Floats, mask: Floats) -> Tensor:
    """The baseline: crop and mask warped over the whole frame, blended in float64, as published scripts do."""
    image = frame.permute(1, 2, 0).numpy().astype(np.float64)
    height, width = image.shape[:2]
    pixels = crop.permute(1, 2, 0).numpy().astype(np.float64) * 255
    matrix = to_frame.astype(np.float64)
    warped = cv2.warpAffine(pixels, matrix, (width, height))
    white = cv2.warpAffine(np.full(mask.shape, 255.0), matrix, (width, height))
    white[white > 20] = 255
    white = cv2.erode(white, np.ones((40, 40), np.uint8), iterations=1)
    weight = cv2.GaussianBlur(white, (41, 41), 0)[:, :, None] / 255
    result = (weight * warped + (1 - weight) * image).astype(np.uint8)
    return torch.from_numpy(result).permute(2, 0, 1)


def pasting(repeats: int) -> list[dict[str, Any]]:
    """Pasting one 224 px face, on its region and over the full frame."""
    rows = []
    mask = soft_square(224, 0.05, 0.10)
    for name, (height, width) in FRAMES.items():
        for face_px in (70.0, 140.0):
            frame, landmarks = frame_with_face(height, width, face_px)
            crops = cut_crops(frame, landmarks, "arcface", 224)

            def on_region(frame: Tensor = frame, crops: Any = crops) -> object:
                return paste(frame, crops.pixels, crops.to_frame, mask[None])

            def on_frame(frame: Tensor = frame, crops: Any = crops) -> object:
                return paste_full_frame(frame, crops.pixels[0], crops.to_frame[0], mask)

            copy = milliseconds(lambda frame=frame: np.array(frame.permute(1, 2, 0).numpy(), order="C"), repeats)  # type: ignore[misc]
            full, region = milliseconds(on_frame, max(repeats // 3, 2)), milliseconds(on_region, repeats)
            rows.append({"frame": name, "eye distance px": face_px, "full frame ms": full, "region ms": region,
                         "of it copying the frame ms": copy, "ratio": full / region})  # fmt: skip
    return rows


def generating(repeats: int) -> list[dict[str, Any]]:
    """The generator at 224 on one thread, float32 and bfloat16, batch 4."""
    rows: list[dict[str, Any]] = []
    generator: Generator = initialised(ModelConfig()).fuse().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    target = torch.rand(4, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    embedding = torch.nn.functional.normalize(torch.randn(4, 512))
    for dtype in (torch.float32, torch.bfloat16):
        generator.to(dtype)
        with torch.inference_mode():
            styles = generator.styles(embedding.to(dtype))
            each = milliseconds(lambda d=dtype, s=styles: generator.render(target.to(d), s), max(repeats // 3, 2)) / 4  # type: ignore[misc]
        rows.append({"precision": str(dtype).removeprefix("torch."), "ms a face": each, "TFLOP/s": 96.24e9 / each / 1e9,
                     "ratio": rows[0]["ms a face"] / each if rows else 1.0})  # fmt: skip
    return rows


def stages(models: str, photos: Path, repeats: int) -> list[dict[str, Any]]:
    """Every CPU step of the image job over real photographs, per face and per image."""
    files = sorted(photos.rglob("*.jpg"))[:: max(len(list(photos.rglob("*.jpg"))) // 24, 1)][:24]
    analyser = FaceAnalyser(models, "arcface", 224, AnalysisConfig())
    data = [file.read_bytes() for file in files]
    images = [read_image(d, f.name, ImagesConfig()) for d, f in zip(data, files, strict=True)]
    found = [analyser(image.frame) for image in images]
    faces = sum(len(f) for f, _ in found)
    masks = [np.broadcast_to(soft_square(224, 0.05, 0.1), (len(f), 224, 224)) for f, _ in found]
    pasted = [paste(i.frame, c.pixels, c.to_frame, m) for i, (_, c), m in zip(images, found, masks, strict=True)]
    work: dict[str, Callable[[], object]] = {
        "decode": lambda: [read_image(d, f.name, ImagesConfig()) for d, f in zip(data, files, strict=True)],
        "detect": lambda: [analyser._detect(image.frame) for image in images],
        "align": lambda: [
            cut_crops(i.frame, f.landmarks, "arcface", 224) for i, (f, _) in zip(images, found, strict=True)
        ],
        "embed": lambda: [analyser.embed(crops.pixels) for _, crops in found],
        "paste": lambda: [
            paste(i.frame, c.pixels, c.to_frame, m) for i, (_, c), m in zip(images, found, masks, strict=True)
        ],
        "encode": lambda: [write_image(i, p, ch, ImagesConfig()) for i, (p, ch) in zip(images, pasted, strict=True)],
    }
    rows = []
    for name, call in work.items():
        total = milliseconds(call, max(repeats // 5, 2))
        rows.append({"stage": name, "ms an image": total / len(images), "ms a face": total / faces})
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table for people."""
    print(f"\n{title}")
    names = list(rows[0])
    cells = [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(n), *(len(c[i]) for c in cells)) for i, n in enumerate(names)]
    for line in [names, *cells]:
        print("  " + "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def main() -> int:
    """Measure everything that can be measured here, and say what could not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=str(ASSETS / "models" / "buffalo_sc_dequant"))
    parser.add_argument("--photos", type=Path, default=ASSETS / "photos")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(
        f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}, OpenCV {cv2.__version__}"
    )
    results = {"pasting": pasting(arguments.repeats)}
    show("Pasting one 224 px face", results["pasting"])
    results["generator"] = generating(arguments.repeats)
    show("Generator, 224 px, batch 4", results["generator"])
    if Path(arguments.models).is_dir() and arguments.photos.is_dir():
        results["stages"] = stages(arguments.models, arguments.photos, arguments.repeats)
        show(f"Every stage over photographs of {arguments.photos}", results["stages"])
    else:
        print(f"\nNo pack at {arguments.models} or no photographs at {arguments.photos}: stages not measured")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
