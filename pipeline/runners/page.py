"""What the reports of all jobs are made of: one HTML page with everything inside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1600px;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.25em .7em;"
    "text-align:left}img{max-width:100%}"
)


def html_page(title: str, says: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML already, under a title and a sentence that are not."""
    head = f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title>\n<style>{_STYLE}</style>"
    return "\n".join([head, f"<h1>{html.escape(title)}</h1><p>{html.escape(says)}</p>", *parts])


def html_table(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of anything that prints."""
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + f"</tr>{cells}</table>"


def html_picture(title: str, name: str, data: bytes) -> str:
    """A picture inside the page, under a heading; `name` tells PNG from JPEG."""
    kind = "png" if name.endswith("png") else "jpeg"
    encoded = base64.b64encode(data).decode()
    return f"<h2>{html.escape(title)}</h2><img alt='{html.escape(title)}' src='data:image/{kind};base64,{encoded}'>"


def side_by_side(*parts: str) -> str:
    """Parts in one line as far as there is room."""
    return "\n".join(["<div style='display:flex;gap:2em;flex-wrap:wrap'>", *parts, "</div>"])


def encode_jpeg(picture: Pixels) -> bytes:
    """[h, w, 3] u8 RGB as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not done:
        raise ValueError("OpenCV cannot encode JPEG")
    return bytes(data)
