"""The stored planes of a JPEG as Pillow gives them, for files whose coefficients cannot be had.

`draft("YCbCr", ...)` gives the exact Y plane at full size; at half size libjpeg decodes the chroma of a 4:2:0
picture at its stored resolution.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.media.samples import Pixels


def with_moved_planes(data: bytes, subsampling: int, step: NDArray[np.float32]) -> Image.Image:
    """A grey or YCbCr JPEG's stored planes with a difference added.

    Args:
        data: a JPEG file of [H, W] pixels, a multiple of 8.
        subsampling: Pillow's number for it.
        step: [H, W, C] the difference; chroma takes the mean of the pixels of a sample.

    Returns:
        A picture in the mode `L` or `YCbCr`, chroma repeated to full size.
    """
    planes = _stored_planes(data, subsampling)
    luma = _moved(planes[0], step[..., 0])
    if len(planes) == 1:
        return Image.fromarray(luma)
    chroma = planes[1]
    down, across = luma.shape[0] // chroma.shape[0], luma.shape[1] // chroma.shape[1]
    chroma = _moved(chroma, _cells(step[..., 1:], down, across).mean(axis=(2, 3)))
    full = chroma.repeat(down, axis=0).repeat(across, axis=1)
    return Image.fromarray(np.dstack([luma, full]), mode="YCbCr")


def _moved(plane: Pixels, step: NDArray[np.float32]) -> Pixels:
    """A plane moved by a difference of the same shape."""
    return np.asarray(np.clip(np.rint(plane + step), 0, 255), np.uint8)


def _stored_planes(data: bytes, subsampling: int) -> list[Pixels]:
    """The decoded planes: [H, W] of Y, and [H / down, W / across, 2] of Cb and Cr unless the picture is grey."""
    full = _drafted(data, 1)
    if full.ndim == 2:
        return [full]
    if subsampling == 2:
        chroma = _drafted(data, 2)[..., 1:].copy()
    elif subsampling == 1:
        chroma = _unsmoothed(full[..., 1:])
    else:
        chroma = full[..., 1:].copy()
    return [full[..., 0].copy(), chroma]


def _drafted(data: bytes, shrink: int) -> Pixels:
    """[H / shrink, W / shrink, 3] YCbCr, or grey without the last axis, as libjpeg decodes it at that scale."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.draft("YCbCr", (image.width // shrink, image.height // shrink))
    array: Pixels = np.array(image)
    return array


def _unsmoothed(chroma: Pixels) -> Pixels:
    """[H, W / 2, 2] chroma of a 4:2:2 picture, from [H, W, 2] as libjpeg smooths it on the way up.

    The mean of a pair is 6/8 of its own sample and 1/8 of each neighbour: a few steps towards it undo that.
    """
    means = chroma.astype(np.float32).reshape(chroma.shape[0], -1, 2, 2).mean(axis=2)
    samples = means.copy()
    for _ in range(8):
        padded = np.pad(samples, ((0, 0), (1, 1), (0, 0)), mode="edge")
        samples += means - (6 * samples + padded[:, :-2] + padded[:, 2:]) / 8
    rounded: Pixels = np.clip(np.rint(samples), 0, 255).astype(np.uint8)
    return rounded


def _cells(array: NDArray[np.generic], down: int, across: int) -> NDArray[np.generic]:
    """[H, W, ...] as [H / down, W / across, down, across, ...]."""
    height, width, *rest = array.shape
    return array.reshape(height // down, down, width // across, across, *rest).swapaxes(1, 2)
