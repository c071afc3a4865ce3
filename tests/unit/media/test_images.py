from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.config import ImagesConfig
from pipeline.errors import ItemError, RefusedInputError, UnreadableError
from pipeline.media.exif import without_thumbnail
from pipeline.media.images import StillImage, read_image, write_image
from tests.bad_images import encoded, make_picture, write_bad_images, write_odd_images

LIMITS = ImagesConfig()
PICTURE = make_picture()
LOSSY = {".jpg", ".avif"}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("bad")
    return folder, write_bad_images(folder)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("odd")
    return {name: (folder / name).read_bytes() for name in write_odd_images(folder, PICTURE)}


def hwc(image: StillImage) -> NDArray[np.uint8]:
    return image.frame.permute(1, 2, 0).numpy()


def swapped(image: StillImage) -> tuple[Tensor, NDArray[np.bool_]]:
    """New colours in the middle, as a swap would bring them."""
    height, width = image.frame.shape[1:]
    changed = np.zeros((height, width), np.bool_)
    changed[height // 3 : height // 2, width // 3 : width // 2] = True
    frame = image.frame.clone()
    frame[:, height // 3 : height // 2, width // 3 : width // 2] = frame.new_tensor([170, 90, 60])[:, None, None]
    return frame, changed


def grown(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The changed box on the 16-pixel grid counted from either side, and 16 pixels more."""
    rows, columns = np.nonzero(changed)
    result = np.zeros_like(changed)
    result[max(0, rows.min() - 32) : rows.max() + 33, max(0, columns.min() - 32) : columns.max() + 33] = True
    return result


def cases() -> list[str]:
    names = [f"orientation_{n}.jpg" for n in range(1, 9)]
    names += [f"orientation_{n}.{kind}" for n in (6, 7) for kind in ("png", "tif")]
    names += [f"{name}.jpg" for name in ("cmyk", "grey", "progressive", "chroma_444", "chroma_422", "rgb_stored")]
    names += ["odd_size.jpg", "profile.jpg", "grey_16.png", "rgb_16.png", "palette.png", "two_levels.png"]
    names += ["rgba.png", "grey_alpha.png", "profile.png", "png_with_wrong_name.jpg", "lossy.webp", "lossless.webp"]
    return [*names, "still.avif", "plain.bmp", "lzw.tif", "plain.tif", "still.gif"]


def test_the_cases_are_all_the_odd_images(odd: dict[str, bytes]) -> None:
    assert sorted(odd) == sorted(cases())


@pytest.mark.parametrize("name", cases())
def test_an_odd_image_shows_the_picture_upright(odd: dict[str, bytes], name: str) -> None:
    shown = hwc(read_image(odd[name], name, LIMITS)).astype(np.int16)
    reference = PICTURE[: shown.shape[0], : shown.shape[1]].astype(np.int16)
    if any(word in name for word in ("grey", "two_levels")):
        assert abs(shown.mean() - reference.mean()) < 12
    else:
        assert np.abs(shown - reference).mean() < 8


@pytest.mark.parametrize("name", cases())
def test_nothing_changed_returns_the_original_bytes(odd: dict[str, bytes], name: str) -> None:
    image = read_image(odd[name], name, LIMITS)
    assert write_image(image, image.frame, np.zeros(image.frame.shape[1:], np.bool_), LIMITS) == odd[name]


@pytest.mark.parametrize("name", cases())
def test_what_is_not_changed_comes_through(odd: dict[str, bytes], name: str) -> None:
    image = read_image(odd[name], name, LIMITS)
    frame, changed = swapped(image)
    result = read_image(write_image(image, frame, changed, LIMITS), name, LIMITS)
    outside = ~grown(changed) if Path(name).suffix in LOSSY else ~changed
    difference = np.abs(hwc(result).astype(np.int16) - hwc(image))[outside]
    if name == "still.avif":
        assert difference.mean() < 1.5
    else:
        assert (difference > 0).mean() <= (0.01 if name == "progressive.jpg" else 0)


@pytest.mark.parametrize("name", cases())
def test_the_new_colours_arrive(odd: dict[str, bytes], name: str) -> None:
    image = read_image(odd[name], name, LIMITS)
    frame, changed = swapped(image)
    result = hwc(read_image(write_image(image, frame, changed, LIMITS), name, LIMITS))[changed]
    new = frame.permute(1, 2, 0).numpy()[changed]
    if any(word in name for word in ("grey", "two_levels")):
        assert abs(result.mean() - 110.6) < 4
    else:
        assert np.abs(result.astype(np.int16) - new).mean() < (20 if "palette" in name or "gif" in name else 8)


@pytest.mark.parametrize("name", cases())
def test_format_size_and_metadata_come_back(odd: dict[str, bytes], name: str) -> None:
    image = read_image(odd[name], name, LIMITS)
    written = write_image(image, *swapped(image), LIMITS)
    before, after = Image.open(io.BytesIO(odd[name])), Image.open(io.BytesIO(written))
    assert (after.format, after.size) == (before.format, before.size)
    assert after.mode == before.mode or image.notes
    assert after.getexif().get(0x0112) == before.getexif().get(0x0112)
    for key in ("icc_profile", "dpi", "comment", "exif", "Title", "progressive", "compression"):
        assert after.info.get(key) == before.info.get(key), key
    assert getattr(after, "quantization", None) == getattr(before, "quantization", None)


@pytest.mark.parametrize("name", ["rgba.png", "grey_alpha.png"])
def test_alpha_comes_back(odd: dict[str, bytes], name: str) -> None:
    image = read_image(odd[name], name, LIMITS)
    written = write_image(image, *swapped(image), LIMITS)
    before, after = (np.asarray(Image.open(io.BytesIO(data)))[..., -1] for data in (odd[name], written))
    assert np.array_equal(before, after)


def test_sixteen_grey_bits_come_through(odd: dict[str, bytes]) -> None:
    image = read_image(odd["grey_16.png"], "grey", LIMITS)
    frame, changed = swapped(image)
    written = write_image(image, frame, changed, LIMITS)
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (odd["grey_16.png"], written))
    assert after.dtype == np.uint16
    assert np.array_equal(before[~changed], after[~changed])


@pytest.mark.parametrize("quality", [75, 90])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(96, 112), (99, 113), (17, 250), (8, 8)])
def test_jpeg_blocks_that_did_not_change_are_identical(quality: int, subsampling: int, size: tuple[int, int]) -> None:
    data = encoded(make_picture(*size), "JPEG", quality=quality, subsampling=subsampling)
    image = read_image(data, "a.jpg", LIMITS)
    frame = image.frame.clone()
    frame[:, 0, 0] = 200
    changed = np.zeros(size, np.bool_)
    changed[0, 0] = True
    result = hwc(read_image(write_image(image, frame, changed, LIMITS), "a.jpg", LIMITS))
    same = (result == hwc(image)).all(axis=-1)
    same[:17, :17] = True
    assert same.all()


def test_a_set_quality_is_used() -> None:
    data = encoded(PICTURE, "JPEG", quality=95)
    image = read_image(data, "a.jpg", LIMITS)
    written = write_image(image, *swapped(image), ImagesConfig(jpeg_quality=30))
    assert len(written) < len(data) / 2


def test_every_bad_image_ends_in_its_reason(bad: tuple[Path, dict[str, str]]) -> None:
    folder, reasons = bad
    ends = {}
    for name in reasons:
        try:
            read_image((folder / name).read_bytes(), name, LIMITS)
            ends[name] = "no_face"
        except ItemError as error:
            ends[name] = error.code
    assert ends == reasons
    assert len(reasons) >= 30


def test_a_readable_bad_image_can_be_written(bad: tuple[Path, dict[str, str]]) -> None:
    folder, reasons = bad
    for name in (name for name, reason in reasons.items() if reason == "no_face"):
        image = read_image((folder / name).read_bytes(), name, LIMITS)
        written = write_image(image, image.frame, np.ones(image.frame.shape[1:], np.bool_), LIMITS)
        assert read_image(written, name, LIMITS).frame.shape == image.frame.shape


def test_limits_are_named_in_the_error() -> None:
    data = encoded(PICTURE, "PNG")
    with pytest.raises(RefusedInputError, match=r"images\.max_pixels 100"):
        read_image(data, "a.png", ImagesConfig(max_pixels=100))
    with pytest.raises(RefusedInputError, match=r"images\.max_bytes 100"):
        read_image(data, "a.png", ImagesConfig(max_bytes=100))
    with pytest.raises(UnreadableError, match=r"a\.png: the file is empty\. Replace the file\."):
        read_image(b"", "a.png", LIMITS)


def test_the_thumbnail_of_the_old_face_does_not_survive() -> None:
    thumbnail = b"\xff\xd8 the old face \xff\xd9"
    first = b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x01\0\0\0" + b"\x1a\0\0\0"
    entries = [(0x0201, 56), (0x0202, len(thumbnail))]
    second = b"\x02\0" + b"".join(
        np.array([t, 4], "<u2").tobytes() + np.array([1, v], "<u4").tobytes() for t, v in entries
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0" + first + second + bytes(4)
    exif = exif + bytes(62 - len(exif)) + thumbnail
    assert b"the old face" not in without_thumbnail(exif)
    image = read_image(encoded(PICTURE, "JPEG", exif=exif), "a.jpg", LIMITS)
    assert any("thumbnail" in note for note in image.notes)
    assert b"the old face" not in write_image(image, *swapped(image), LIMITS)
