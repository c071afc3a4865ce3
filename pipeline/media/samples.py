"""Between a file's own samples (grey, palette, CMYK, 16 bits, alpha) and RGB pixels of 8 bits."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipeline.media import png

Pixels = NDArray[np.uint8]
Samples = NDArray[np.uint8] | NDArray[np.uint16]
Marked = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

# What Pillow, its plug-ins and our own parsers raise on damaged files: no common base exists.
CORRUPT = (
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

_PER_STEP = 257
"""16-bit steps in one 8-bit step: 255 * 257 = 65535."""
_CHUNK = 1 << 16


def orientation_of(image: Image.Image) -> int:
    """1..8 as EXIF says how the stored picture is to be turned; 1 where it says nothing sensible."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except CORRUPT:
        return 1
    return value if value in range(1, 9) else 1


def upright(array: NDArray[T], orientation: int) -> NDArray[T]:
    """Turns a stored [H, W, ...] array the way it is to be shown."""
    if orientation > 4:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def stored(array: NDArray[T], orientation: int) -> NDArray[T]:
    """Undoes `_upright`: every turn but the two quarter turns is its own inverse."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def stored_samples(image: Image.Image, data: bytes) -> Samples:
    """[H, W] or [H, W, C] samples as stored, decoded whole or not at all."""
    orientation = orientation_of(image)
    image.load()
    if image.format == "PNG" and png.is_deep(data):
        return _deep_samples(data)
    array = np.array(image)
    if image.mode.startswith("I;16"):
        array = array.astype(np.uint16)
    # Pillow turns TIFF, and only TIFF, upright by itself.
    return stored(array, orientation) if image.format == "TIFF" else array


def _deep_samples(data: bytes) -> NDArray[np.uint16]:
    """[H, W, C] u16 of a colour PNG of 16 bits, RGB first; Pillow would cut it to 8."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise ValueError("the 16-bit samples cannot be decoded")
    colors = decoded[..., 2::-1]
    return np.dstack([colors, decoded[..., 3:]]) if data[25] != 2 else np.ascontiguousarray(colors)


def to_rgb(image: Image.Image, samples: Samples) -> Pixels:
    """[H, W, 3] RGB of 8 bits, alpha left out.

    Args:
        image: where the samples come from, for its mode, palette and profile.
        samples: [H, W] or [H, W, C], turned as the result is to be.
    """
    if samples.dtype == np.uint16:
        shallow = ((samples.astype(np.uint32) + _PER_STEP // 2) // _PER_STEP).astype(np.uint8)
        return shallow[..., :3] if shallow.ndim == 3 else np.repeat(shallow[..., None], 3, axis=2)
    if image.mode == "RGB":
        return np.asarray(samples, np.uint8)
    if image.mode == "RGBA":
        return np.asarray(samples[..., :3], np.uint8)
    if image.mode == "CMYK":
        return np.asarray(_between_profiles(Image.fromarray(samples, mode="CMYK"), "RGB", _profile(image)))
    if image.mode == "P":
        colors: Pixels = _palette(image)[samples]
        return colors
    grey = np.asarray(samples[..., 0] if image.mode == "LA" else samples)
    grey = np.where(grey, 255, 0).astype(np.uint8) if image.mode == "1" else np.asarray(grey, np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def replaced(image: Image.Image, samples: Samples, pixels: Pixels, marked: Marked) -> Samples:
    """The samples with the marked pixels in new colours; alpha stays.

    Args:
        image: where the samples come from, for its mode and profile; not `1` or `P`.
        samples: [H, W] or [H, W, C].
        pixels: [H, W, 3] RGB.
        marked: [H, W] where `pixels` counts.
    """
    result = samples.copy()
    fresh = pixels[marked]
    if image.mode == "CMYK":
        row = _between_profiles(Image.fromarray(fresh[None]), "CMYK", _profile(image))
        result[marked] = np.asarray(row)[0]
        return result
    scale = _PER_STEP if samples.dtype == np.uint16 else 1
    if samples.ndim == 2:
        result[marked] = _luma(fresh) * samples.dtype.type(scale)
    elif samples.shape[2] == 2:
        result[marked, 0] = _luma(fresh)
    else:
        result[marked, :3] = fresh * samples.dtype.type(scale)
    return result


def with_more_colors(image: Image.Image) -> Image.Image:
    """A picture of few colours (`1`, `P`, grey with a transparent value) in a mode that takes any colour."""
    if "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")


def nearest_entries(image: Image.Image, samples: Pixels, pixels: Pixels, marked: Marked) -> Pixels:
    """The [H, W] palette indices with the marked pixels at the nearest opaque entry of the same palette."""
    palette = _palette(image).astype(np.float32)
    transparent = image.info.get("transparency")
    length = (palette**2).sum(axis=1)
    length[len(image.getpalette("RGB") or []) // 3 :] = np.inf
    if isinstance(transparent, int) and transparent < len(length):
        length[transparent] = np.inf
    fresh = pixels[marked]
    result = samples.copy()
    steps = range(0, len(fresh), _CHUNK)
    distances = (length - 2 * fresh[at : at + _CHUNK].astype(np.float32) @ palette.T for at in steps)
    result[marked] = np.concatenate([distance.argmin(axis=1) for distance in distances])
    return result


def _palette(image: Image.Image) -> Pixels:
    """[256, 3] RGB entries; black beyond the end of a shorter palette."""
    entries = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    entries[: len(given)] = given
    return entries


def _luma(pixels: Pixels) -> Pixels:
    """Rec. 601 luma of [N, 3] RGB, rounded as Pillow rounds it."""
    red, green, blue = pixels.astype(np.uint32).T
    luma: Pixels = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
    return luma


def _profile(image: Image.Image) -> bytes:
    profile = image.info.get("icc_profile", b"")
    return profile if isinstance(profile, bytes) else b""


def _between_profiles(image: Image.Image, mode: str, profile: bytes) -> Image.Image:
    """CMYK to RGB or back, through the file's profile, or by simple arithmetic without a usable one."""
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        pair = (inks, srgb) if mode == "RGB" else (srgb, inks)
        converted = ImageCms.profileToProfile(image, *pair, outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image.convert(mode)
    return converted if converted is not None else image.convert(mode)
