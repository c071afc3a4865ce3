"""One still image: decoded safely, and encoded again so that what was not replaced comes through unchanged.

Pillow reads the header under a cap on the pixels before anything decodes. The stored samples are not carried
along: writing decodes the original bytes once more and replaces only the changed pixels, in the file's own
mode. Nothing changed means the original bytes.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pipeline.config import ImagesConfig
from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media import jpeg, png
from pipeline.media.exif import without_thumbnail
from pipeline.media.samples import Marked, Pixels, Samples, nearest_entries, replaced, to_rgb, with_more_colors

T = TypeVar("T", bound=np.generic)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "CMYK"})
# What Pillow, its plug-ins and our own parsers raise on damaged files: no common base exists.
_CORRUPT = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    cv2.error,
)
_ORIENTATION = 0x0112
_TIFF_LOSSLESS = frozenset({"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "lzma"})
# TIFF tags that say where and how the pixels lie: Pillow writes its own.
_TIFF_LAYOUT = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {330, 338, 339, 347, 34665, 34853, 40965, *range(512, 533)}
)
_AVIF_QUALITY = 95


@dataclass(frozen=True, slots=True)
class StillImage:
    """A decoded still image and what it takes to write it back.

    Attributes:
        frame: [3, H, W] u8 RGB, upright; a view of contiguous HWC memory.
        notes: what a changed result cannot keep, one sentence each.
        uri: where the image came from.
        data: the file as it was read.
    """

    frame: Tensor
    notes: tuple[str, ...]
    uri: str
    data: bytes


def read_image(data: bytes, uri: str, limits: ImagesConfig) -> StillImage:
    """Decodes one image.

    Args:
        data: the whole file.
        uri: names the image in errors.
        limits: the largest file and picture to take.

    Raises:
        UnreadableError: empty, cut off, damaged, or not an image of a known format.
        RefusedInputError: `too_large`, `animated` or `unsupported`.
    """
    with _decoding(uri), _opened(data, uri, limits) as image:
        notes = _notes(image, data)
        orientation = _orientation(image)
        rgb = _upright(to_rgb(image, _samples(image, data)), orientation)
    return StillImage(torch.from_numpy(np.array(rgb, order="C")).permute(2, 0, 1), notes, uri, data)


def write_image(image: StillImage, frame: Tensor, changed: Marked, settings: ImagesConfig) -> bytes:
    """Encodes an image with some pixels replaced, in the format, mode and orientation it came in.

    Args:
        image: as `read_image` gave it.
        frame: [3, H, W] u8 RGB, upright.
        changed: [H, W] upright; only there the result may differ from the input.
        settings: the qualities of lossy formats.

    Returns:
        The file; the original bytes where nothing changed.

    Raises:
        UnreadableError, RefusedInputError: as `read_image`, if the settings are stricter.
    """
    if not changed.any():
        return image.data
    with _decoding(image.uri), _opened(image.data, image.uri, settings) as original:
        orientation = _orientation(original)
        pixels = np.ascontiguousarray(_stored(frame.permute(1, 2, 0).numpy(), orientation))
        marked = np.ascontiguousarray(_stored(changed, orientation))
        if original.format in ("JPEG", "MPO"):
            return _write_jpeg(image.data, original, pixels, marked, settings.jpeg_quality)
        if original.format == "PNG":
            return _write_png(image.data, original, pixels, marked)
        return _write_other(image.data, original, pixels, marked, settings.webp_quality)


@contextmanager
def _decoding(uri: str) -> Iterator[None]:
    """Turns what damaged files raise into errors of the item; Pillow's warnings on odd metadata are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError as error:
            raise UnreadableError(uri, "not an image of a known format") from error
        except Image.DecompressionBombError as error:
            raise _too_large(uri, "more pixels than any image may have") from error
        except _CORRUPT as error:
            raise UnreadableError(uri, f"damaged or cut off ({error})", "Replace the file") from error


def _opened(data: bytes, uri: str, limits: ImagesConfig) -> Image.Image:
    """The image with its header read and checked, its pixels not yet decoded."""
    if not data:
        raise UnreadableError(uri, "the file is empty", "Replace the file")
    if len(data) > limits.max_bytes:
        raise _too_large(uri, f"{len(data)} bytes, above images.max_bytes {limits.max_bytes}")
    # Pillow's own cap must not be tighter than ours; it is never lowered, so threads cannot undo each other.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, limits.max_pixels)
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > limits.max_pixels:
        size = f"{image.width}x{image.height} pixels"
        raise _too_large(uri, f"{size}, above images.max_pixels {limits.max_pixels}")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        mend = "Split it into single images or use the video job"
        raise RefusedInputError(uri, "more than one frame or page", mend, code="animated")
    if image.mode not in _MODES:
        mend = "Convert it to 8-bit RGB"
        raise RefusedInputError(uri, f"samples of the kind {image.mode} are not supported", mend, code="unsupported")
    if image.format == "PNG":
        png.check_chunks(data)
    return image


def _too_large(uri: str, problem: str) -> RefusedInputError:
    return RefusedInputError(uri, problem, "Scale it down or raise the limit", code="too_large")


def _notes(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """What a changed result will not keep."""
    if image.format in ("JPEG", "MPO"):
        return jpeg.read_layout(data).notes()
    notes = []
    if image.mode in ("1", "P") and image.format != "GIF":
        notes.append("A picture of few colours is written with 8 bits a channel; untouched pixels keep their colour.")
    if image.format == "PNG" and data[24] in (2, 4) and image.mode == "L":
        notes.append(f"A grey picture of {data[24]} bits is written with 8 bits; untouched pixels keep their value.")
    if image.format == "AVIF":
        notes.append(f"AVIF is coded anew, with 8 bits a channel at quality {_AVIF_QUALITY} and full chroma.")
    if image.format == "TIFF" and set(getattr(image, "tag_v2").get(258, ())) & {16} and image.mode != "I;16":
        notes.append("A colour TIFF of 16 bits is read and written with 8 bits a channel.")
    if image.format == "TIFF" and image.info.get("compression", "raw") not in _TIFF_LOSSLESS:
        notes.append("The TIFF's compression is replaced by lossless Deflate.")
    if without_thumbnail(image.info.get("exif", b"")) != image.info.get("exif", b""):
        notes.append("The thumbnail in the EXIF data shows the picture before the swap and is not kept.")
    return tuple(notes)


def _orientation(image: Image.Image) -> int:
    """1..8 as EXIF says how the stored picture is to be turned; 1 where it says nothing sensible."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _CORRUPT:
        return 1
    return value if value in range(1, 9) else 1


def _upright(array: NDArray[T], orientation: int) -> NDArray[T]:
    """Turns a stored [H, W, ...] array the way it is to be shown."""
    if orientation > 4:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def _stored(array: NDArray[T], orientation: int) -> NDArray[T]:
    """Undoes `_upright`: every turn but the two quarter turns is its own inverse."""
    return _upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def _samples(image: Image.Image, data: bytes) -> Samples:
    """[H, W] or [H, W, C] samples as stored, decoded whole or not at all."""
    orientation = _orientation(image)
    image.load()
    if image.format == "PNG" and png.is_deep(data):
        return _deep_samples(data)
    array = np.array(image)
    if image.mode.startswith("I;16"):
        array = array.astype(np.uint16)
    # Pillow turns TIFF, and only TIFF, upright by itself.
    return _stored(array, orientation) if image.format == "TIFF" else array


def _deep_samples(data: bytes) -> NDArray[np.uint16]:
    """[H, W, C] u16 of a colour PNG of 16 bits, RGB first; Pillow would cut it to 8."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise ValueError("the 16-bit samples cannot be decoded")
    colors = decoded[..., 2::-1]
    return np.dstack([colors, decoded[..., 3:]]) if data[25] != 2 else np.ascontiguousarray(colors)


def _write_jpeg(data: bytes, original: Image.Image, pixels: Pixels, marked: Marked, quality: int | None) -> bytes:
    if quality is None and jpeg.read_layout(data).replaceable:
        return jpeg.replace_pixels(data, pixels, marked)
    result = replaced(original, _samples(original, data), pixels, marked)
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
        indices = np.asarray(_samples(original, data), np.uint8)
        result = Image.fromarray(nearest_entries(original, indices, pixels, marked), mode="P")
        result.putpalette(original.getpalette("RGB") or [])
        return _saved(result, kind, **options)
    samples = _replaced_samples(original, data, pixels, marked)
    mode = "CMYK" if original.mode == "CMYK" else None
    return _saved(Image.fromarray(samples, mode=mode), kind, **options)


def _replaced_samples(original: Image.Image, data: bytes, pixels: Pixels, marked: Marked) -> Samples:
    """The stored samples with new ones where marked, in a mode that can hold them."""
    samples = _samples(original, data)
    few_bits = original.format == "PNG" and data[24] < 8
    if original.mode in ("1", "P") or (few_bits and "transparency" in original.info):
        original = with_more_colors(original)
        samples = _as_stored(original, samples)
    return replaced(original, samples, pixels, marked)


def _options(original: Image.Image, webp: int | None) -> dict[str, object]:
    """Pillow's settings that keep a format's metadata and as much of its coding as can be."""
    info = original.info
    names = ("icc_profile", "xmp", "dpi", "comment", "transparency", "background")
    options: dict[str, object] = {name: info[name] for name in names if info.get(name) is not None}
    if "exif" in info:
        options["exif"] = without_thumbnail(info["exif"])
    if original.format == "WEBP":
        coding = {"lossless": True, "exact": True} if webp is None else {"quality": webp, "exact": True}
        return {"icc_profile": b"", **options, **coding}
    if original.format == "AVIF":
        return {**options, "quality": _AVIF_QUALITY, "subsampling": "4:4:4"}
    if original.format == "GIF":
        return {**options, "optimize": False, "interlace": bool(info.get("interlace"))}
    return options
