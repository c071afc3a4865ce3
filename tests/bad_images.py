"""Damaged, hostile and odd image files, made on the spot from a seed."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[np.uint8]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def make_picture(height: int = 96, width: int = 112, seed: int = 0) -> Pixels:
    """[H, W, 3] u8 RGB: smooth colours with a little texture, away from black and white."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    phases = rng.uniform(0, 6, 3)
    waves = [128 + 45 * np.sin(x / 17 + p) + 35 * np.cos(y / 13 - p) + 10 * np.sin((x + y) / 2.5) for p in phases]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 3, (height, width, 3)), 16, 240).astype(np.uint8)


def encoded(picture: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """An array or Pillow image as a file of that kind."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def write_bad_images(folder: Path, seed: int = 0) -> dict[str, str]:
    """Writes one file of each bad or odd kind.

    Args:
        folder: an existing folder.
        seed: of the noise in them.

    Returns:
        File name to the reason it must end in: `unreadable`, `too_large` (at the default limits), `animated`,
        `unsupported`, or `no_face` for what decodes and shows nobody.
    """
    picture = make_picture(seed=seed)
    found = _not_images(seed) | _cut_off(picture) | _damaged(picture) | _several(picture) | _extreme(picture)
    for name, (content, _) in found.items():
        (folder / name).write_bytes(content)
    return {name: reason for name, (_, reason) in found.items()}


def _not_images(seed: int) -> dict[str, tuple[bytes, str]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    contents = {
        "empty.jpg": b"",
        "one_byte.png": b"\x89",
        "random_bytes.jpg": np.random.default_rng(seed).bytes(4096),
        "zeros.png": bytes(4096),
        "text.jpg": b"this is not a picture\n" * 40,
        "vector.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>',
        "svg_named.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "document.pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF",
        "postscript.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        "error_page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zip_named.jpg": archive.getvalue(),
        "gzip_named.jpg": gzip.compress(b"a picture once"),
        "movie_named.jpg": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200),
        "plain_ppm.ppm": b"P6 2 2 255\n" + bytes(12),
    }
    foreign = (".svg", ".pdf", ".eps", ".ppm")  # names that promise no image of ours
    return {n: (c, "not_an_image" if n.endswith(foreign) else "unreadable") for n, c in contents.items()}


def _cut_off(picture: Pixels) -> dict[str, tuple[bytes, str]]:
    whole = {
        "jpeg.jpg": encoded(picture, "JPEG"),
        "progressive.jpg": encoded(picture, "JPEG", progressive=True),
        "png.png": encoded(picture, "PNG"),
        "webp.webp": encoded(picture, "WEBP"),
        "gif.gif": encoded(picture, "GIF"),
        "tiff.tif": encoded(picture, "TIFF"),
        "lzw.tif": encoded(picture, "TIFF", compression="tiff_lzw"),
        "bmp.bmp": encoded(picture, "BMP"),
        "avif.avif": encoded(picture, "AVIF"),
    }
    found = {f"cut_{name}": (content[: len(content) // 2], "unreadable") for name, content in whole.items()}
    found["cut_in_header.jpg"] = (whole["jpeg.jpg"][:40], "unreadable")
    found["without_end.jpg"] = (whole["jpeg.jpg"][:-2], "unreadable")
    found["without_end.png"] = (whole["png.png"][:-12], "unreadable")
    return found


def _damaged(picture: Pixels) -> dict[str, tuple[bytes, str]]:
    png, jpeg = encoded(picture, "PNG"), encoded(picture, "JPEG")
    pixels = png.index(b"IDAT") + 40
    frame = jpeg.index(b"\xff\xc0")
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(bytes(20)))
    bomb = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000), 9))
    flipped = bytearray(jpeg)
    # Scan bytes without markers: JPEG has no checksum, so this decodes to wrong colours without an error.
    flipped[len(jpeg) * 3 // 4] ^= 0x10
    # Without Huffman tables libjpeg takes the standard ones, as for motion JPEG.
    return {
        "bad_checksum.png": (png[:pixels] + bytes([png[pixels] ^ 255]) + png[pixels + 1 :], "unreadable"),
        "without_palette.png": (_SIGNATURE + header + body + _chunk(b"IEND", b""), "unreadable"),
        "text_bomb.png": (png[:33] + bomb + png[33:], "unreadable"),
        "zero_height.jpg": (jpeg[: frame + 5] + b"\0\0" + jpeg[frame + 7 :], "unreadable"),
        "standard_tables.jpg": (jpeg.replace(b"\xff\xc4", b"\xff\xe5"), "no_face"),
        "flipped_bit.jpg": (bytes(flipped), "no_face"),
        "corrupt_exif.jpg": (encoded(picture, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(20)), "no_face"),
        "corrupt_profile.png": (encoded(picture, "PNG", icc_profile=b"no profile"), "no_face"),
    }


def _several(picture: Pixels) -> dict[str, tuple[bytes, str]]:
    frames = [Image.fromarray(np.roll(picture, 8, axis=1)), Image.fromarray(255 - picture)]
    more: dict[str, Any] = {"save_all": True, "append_images": frames}
    kinds = {"animated.gif": "GIF", "animated.png": "PNG", "animated.webp": "WEBP", "pages.tif": "TIFF"}
    return {name: (encoded(picture, kind, **more), "animated") for name, kind in kinds.items()}


def _extreme(picture: Pixels) -> dict[str, tuple[bytes, str]]:
    grey = np.full((64, 64, 3), 128, np.uint8)
    floats = Image.fromarray(picture[..., 0].astype(np.float32))
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(30_000 * 3751), 1)
    huge = _SIGNATURE + header + _chunk(b"IDAT", zlib.compress(rows)[:1000]) + _chunk(b"IEND", b"")
    return {
        "bomb.png": (huge, "too_large"),
        "bomb.bmp": (_huge_bmp(), "too_large"),
        "float.tif": (encoded(floats, "TIFF"), "unsupported"),
        "integers.tif": (encoded(Image.new("I", (8, 8), 70_000), "TIFF"), "unsupported"),
        "one_pixel.png": (encoded(grey[:1, :1], "PNG"), "no_face"),
        "one_pixel.jpg": (encoded(grey[:1, :1], "JPEG"), "no_face"),
        "strip.png": (encoded(np.zeros((1, 65_500), np.uint8), "PNG"), "no_face"),
        "strip.jpg": (encoded(np.zeros((1, 65_500), np.uint8), "JPEG"), "no_face"),
        "flat_grey.jpg": (encoded(grey, "JPEG"), "no_face"),
        "png_named.jpg": (encoded(grey, "PNG"), "no_face"),
        "without_extension": (encoded(grey, "PNG"), "no_face"),
        "all_transparent.png": (encoded(np.zeros((32, 32, 4), np.uint8), "PNG"), "no_face"),
        "trailing_bytes.jpg": (encoded(grey, "JPEG") + b"more" * 99, "no_face"),
    }


def _huge_bmp() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def write_odd_images(folder: Path, picture: Pixels) -> list[str]:
    """Saves one picture in each odd but good way.

    Args:
        folder: an existing folder.
        picture: [H, W, 3] u8 RGB.

    Returns:
        The file names; each shows the picture upright (`odd_size.jpg` without its last row and column if even).
    """
    contents = _turned(picture) | _jpegs(picture) | _pngs(picture) | _others(picture)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return list(contents)


def _turned(picture: Pixels) -> dict[str, bytes]:
    """The pixels lie so that the orientation tag turns them upright."""
    turns: list[Callable[[Pixels], Pixels]] = [
        lambda p: p,
        lambda p: p[:, ::-1],
        lambda p: p[::-1, ::-1],
        lambda p: p[::-1],
        lambda p: p.swapaxes(0, 1),
        lambda p: np.rot90(p),
        lambda p: np.rot90(p, 2).swapaxes(0, 1),
        lambda p: np.rot90(p, -1),
    ]
    found = {}
    for number, turn in enumerate(turns, start=1):
        tags = Image.Exif()
        tags[0x0112] = number
        tags[0x010F] = "A camera"
        lying = np.ascontiguousarray(turn(picture))
        found[f"orientation_{number}.jpg"] = encoded(lying, "JPEG", quality=90, exif=tags.tobytes())
        if number in (6, 7):
            found[f"orientation_{number}.png"] = encoded(lying, "PNG", exif=tags.tobytes())
            found[f"orientation_{number}.tif"] = encoded(lying, "TIFF", tiffinfo={0x0112: number})
    return found


def _jpegs(picture: Pixels) -> dict[str, bytes]:
    image = Image.fromarray(picture)
    height, width = picture.shape[:2]
    odd = picture[: height - 1 + height % 2, : width - 1 + width % 2]
    return {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG", quality=90),
        "grey.jpg": encoded(image.convert("L"), "JPEG", quality=85),
        "progressive.jpg": encoded(image, "JPEG", quality=80, progressive=True),
        "chroma_444.jpg": encoded(image, "JPEG", quality=85, subsampling=0),
        "chroma_422.jpg": encoded(image, "JPEG", quality=75, subsampling=1),
        "rgb_stored.jpg": encoded(image, "JPEG", quality=90, keep_rgb=True),
        "odd_size.jpg": encoded(np.ascontiguousarray(odd), "JPEG", quality=75),
        "profile.jpg": encoded(image, "JPEG", quality=80, icc_profile=_srgb(), dpi=(300, 300), comment=b"a comment"),
    }


def _pngs(picture: Pixels) -> dict[str, bytes]:
    image = Image.fromarray(picture)
    alpha = np.broadcast_to(np.arange(picture.shape[1], dtype=np.uint8), picture.shape[:2])
    deep = picture.astype(np.uint16) * 257
    deep[..., 0] ^= 3
    grey = np.asarray(image.convert("L"))
    _, deep_png = cv2.imencode(".png", deep[..., ::-1])
    return {
        "grey_16.png": encoded(grey.astype(np.uint16) * 257 ^ 5, "PNG"),
        "rgb_16.png": deep_png.tobytes()[:33] + _chunk(b"tEXt", b"Title\0deep") + deep_png.tobytes()[33:],
        "palette.png": encoded(image.quantize(200), "PNG"),
        "two_levels.png": encoded(image.convert("1"), "PNG"),
        "rgba.png": encoded(np.dstack([picture, alpha]), "PNG", dpi=(72, 72)),
        "grey_alpha.png": encoded(np.dstack([grey, alpha]), "PNG"),
        "profile.png": encoded(image, "PNG", icc_profile=_srgb()),
        "png_with_wrong_name.jpg": encoded(image, "PNG"),
    }


def _others(picture: Pixels) -> dict[str, bytes]:
    image = Image.fromarray(picture)
    return {
        "lossy.webp": encoded(image, "WEBP", quality=80, icc_profile=_srgb()),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "still.avif": encoded(image, "AVIF", quality=80),
        "plain.bmp": encoded(image, "BMP"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw", icc_profile=_srgb(), dpi=(300, 300)),
        "plain.tif": encoded(image, "TIFF"),
        "still.gif": encoded(image.quantize(256), "GIF"),
    }


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
