"""Encoding a picture again in the format, mode and metadata it came in."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.config import ImagesConfig
from pipeline.media import jpeg, png
from pipeline.media.exif import without_thumbnail
from pipeline.media.samples import (
    Marked,
    Pixels,
    Samples,
    nearest_entries,
    orientation_of,
    replaced,
    stored,
    stored_samples,
    with_more_colors,
)

TIFF_LOSSLESS = frozenset({"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "lzma"})
# TIFF tags that say where and how the pixels lie: Pillow writes its own.
_TIFF_LAYOUT = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {330, 338, 339, 347, 34665, 34853, 40965, *range(512, 533)}
)
AVIF_QUALITY = 95
"""0..100; AVIF through Pillow has no lossless setting."""


def write_like(data: bytes, original: Image.Image, pixels: Pixels, marked: Marked, settings: ImagesConfig) -> bytes:
    """A file like `data` with the marked pixels replaced.

    Args:
        data: the original file.
        original: the same, opened and not yet decoded.
        pixels: [H, W, 3] RGB in the stored orientation.
        marked: [H, W] where `pixels` counts.
        settings: the qualities of lossy formats.
    """
    if original.format in ("JPEG", "MPO"):
        return _write_jpeg(data, original, pixels, marked, settings.jpeg_quality)
    if original.format == "PNG":
        return _write_png(data, original, pixels, marked)
    return _write_other(data, original, pixels, marked, settings.webp_quality)


def _write_jpeg(data: bytes, original: Image.Image, pixels: Pixels, marked: Marked, quality: int | None) -> bytes:
    if quality is None:
        return jpeg.replace_pixels(data, pixels, marked)
    result = replaced(original, stored_samples(original, data), pixels, marked)
    return jpeg.encode_like(data, Image.fromarray(result, mode=original.mode), quality)


def _write_png(data: bytes, original: Image.Image, pixels: Pixels, marked: Marked) -> bytes:
    result = _replaced_samples(original, data, pixels, marked)
    if result.dtype == np.uint16 and result.ndim == 3:
        order = [2, 1, 0, 3][: result.shape[2]]
        done, encoded = cv2.imencode(".png", np.ascontiguousarray(result[..., order]))
        if not done:
            raise ValueError("the 16-bit samples cannot be encoded")
        return png.with_metadata_of(data, encoded.tobytes())
    return png.with_metadata_of(data, _saved(Image.fromarray(result), "PNG"))


def _write_other(data: bytes, original: Image.Image, pixels: Pixels, marked: Marked, webp: int | None) -> bytes:
    """WebP, AVIF, TIFF, BMP and GIF, whose metadata Pillow writes."""
    kind = str(original.format)
    options = _options(original, webp)
    if kind == "GIF" and original.mode == "P":
        indices = np.asarray(stored_samples(original, data), np.uint8)
        result = Image.fromarray(nearest_entries(original, indices, pixels, marked), mode="P")
        result.putpalette(original.getpalette("RGB") or [])
        return _saved(result, kind, **options)
    samples = _replaced_samples(original, data, pixels, marked)
    mode = "CMYK" if original.mode == "CMYK" else None
    return _saved(Image.fromarray(samples, mode=mode), kind, **options)


def _replaced_samples(original: Image.Image, data: bytes, pixels: Pixels, marked: Marked) -> Samples:
    """The stored samples with new ones where marked, in a mode that can hold them."""
    orientation = orientation_of(original)
    samples = stored_samples(original, data)
    tiff = original.format == "TIFF"
    few_bits = original.format == "PNG" and data[24] < 8
    if original.mode in ("1", "P") or (few_bits and "transparency" in original.info):
        original = with_more_colors(original)
        array: Pixels = np.array(original)
        samples = stored(array, orientation) if tiff else array
    return replaced(original, samples, pixels, marked)


def _options(original: Image.Image, webp: int | None) -> dict[str, object]:
    """Pillow's settings that keep a format's metadata and as much of its coding as can be."""
    info = original.info
    names = ("icc_profile", "xmp", "dpi", "comment", "transparency", "background")
    options: dict[str, object] = {name: info[name] for name in names if info.get(name) is not None}
    if "exif" in info:
        options["exif"] = without_thumbnail(info["exif"])
    if original.format == "WEBP":
        coding: dict[str, object] = (
            {"lossless": True, "exact": True} if webp is None else {"quality": webp, "exact": True}
        )
        return {"icc_profile": b"", **options, **coding}
    if original.format == "AVIF":
        return {**options, "quality": AVIF_QUALITY, "subsampling": "4:4:4"}
    if original.format == "GIF":
        return {**options, "optimize": False, "interlace": bool(info.get("interlace"))}
    if original.format == "TIFF":
        return {**_tiff_options(original), "icc_profile": info.get("icc_profile")}
    return {"dpi": info["dpi"]} if "dpi" in info else {}


def _tiff_options(original: Image.Image) -> dict[str, object]:
    """The descriptive tags, and the compression where it loses nothing."""
    compression = original.info.get("compression", "raw")
    tags = Image.Exif()
    for tag, value in original.getexif().items():
        if tag not in _TIFF_LAYOUT:
            tags[tag] = value
    return {"tiffinfo": tags, "compression": compression if compression in TIFF_LOSSLESS else "tiff_adobe_deflate"}


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
