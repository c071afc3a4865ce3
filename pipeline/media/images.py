"""One still image: decoded safely, and encoded again so that what was not replaced comes through unchanged.

Pillow reads the header under a cap on the pixels before anything decodes. The stored samples are not carried
along: writing decodes the original bytes once more and replaces only the changed pixels, in the file's own
mode. Nothing changed means the original bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pipeline.config import ImagesConfig
from pipeline.errors import RefusedInputError, UnreadableError
from pipeline.media import jpeg, png
from pipeline.media.exif import without_thumbnail
from pipeline.media.inputs import IMAGE_SUFFIXES
from pipeline.media.samples import CORRUPT, Marked, orientation_of, stored, stored_samples, to_rgb, upright
from pipeline.media.writing import AVIF_QUALITY, TIFF_LOSSLESS, write_like

_BITS_PER_SAMPLE_TAG = 258
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "CMYK"})


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
        orientation = orientation_of(image)
        rgb = upright(to_rgb(image, stored_samples(image, data)), orientation)
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
        RefusedInputError: `not_writable`, or as `read_image` where the settings are stricter.
    """
    if not changed.any():
        return image.data
    with _encoding(image.uri), _opened(image.data, image.uri, settings) as original:
        orientation = orientation_of(original)
        pixels = np.ascontiguousarray(stored(frame.permute(1, 2, 0).numpy(), orientation))
        marked = np.ascontiguousarray(stored(changed, orientation))
        return write_like(image.data, original, pixels, marked, settings)


@contextmanager
def _decoding(uri: str) -> Iterator[None]:
    """Turns what damaged files raise into errors of the item; Pillow's warnings on odd metadata are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnidentifiedImageError as error:
            raise _no_image(uri) from error
        except Image.DecompressionBombError as error:
            raise _too_large(uri, "more pixels than any image may have") from error
        except CORRUPT as error:
            raise UnreadableError(uri, f"damaged or cut off ({error})", "Replace the file") from error


@contextmanager
def _encoding(uri: str) -> Iterator[None]:
    """Turns what an encoder raises into an error of the item that does not blame the file: it was read before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except CORRUPT as error:
            problem = f"cannot be written again in its own format ({type(error).__name__}: {error})"
            raise RefusedInputError(uri, problem, "Convert it to PNG", code="not_writable") from error


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


def _no_image(uri: str) -> UnreadableError | RefusedInputError:
    """Failed where the name promises an image; skipped where nobody would expect one (a sidecar, a text)."""
    problem = "not an image of a known format"
    if Path(uri).suffix.lower() in IMAGE_SUFFIXES:
        return UnreadableError(uri, problem)
    return RefusedInputError(uri, problem, code="not_an_image", status="skipped")


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
        notes.append(f"AVIF is coded anew, with 8 bits a channel at quality {AVIF_QUALITY} and full chroma.")
    if image.format == "TIFF" and _has_deep_colors(image):
        notes.append("A colour TIFF of 16 bits is read and written with 8 bits a channel.")
    if image.format == "TIFF" and image.info.get("compression", "raw") not in TIFF_LOSSLESS:
        notes.append("The TIFF's compression is replaced by lossless Deflate.")
    if without_thumbnail(image.info.get("exif", b"")) != image.info.get("exif", b""):
        notes.append("The thumbnail in the EXIF data shows the picture before the swap and is not kept.")
    return tuple(notes)


def _has_deep_colors(image: Image.Image) -> bool:
    """A TIFF of 16 bits with several samples a pixel, which Pillow cuts to 8."""
    return not image.mode.startswith("I;16") and 16 in getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE_TAG, ())
