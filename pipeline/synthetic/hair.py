"""Draws the hair of one person, behind the face and before it."""

from __future__ import annotations

import numpy as np

from pipeline.synthetic.canvas import Canvas, Head, Patch, Points, mirrored, ribbon, rounded, surface
from pipeline.synthetic.people import HAIR, HAIR_STYLES, palette


class Hair:
    """Hair from an outer arc over the skull to a hairline on the forehead, drawn in two goes: behind and before."""

    def __init__(self, canvas: Canvas, head: Head) -> None:
        who = head.who
        self.canvas, self.head, self.style = canvas, head, HAIR_STYLES[int(who.hair_style)]
        self.color = palette(HAIR, who.hair_color)
        angle = np.linspace(np.pi * 1.03, -np.pi * 0.03, 61)
        curls = self.style == "curly"
        rise = who.hair_volume * (1.9 if curls else 1)
        swell = 1 + 0.025 * curls * np.abs(np.sin(9 * angle))
        self.reach = who.head_width * head.widening * 1.03 + rise * (0.3 if self.style == "short" else 0.5)
        cos, sin = (np.sign(w) * np.abs(w) ** 0.8 for w in (np.cos(angle), np.sin(angle)))  # squarer than an ellipse
        self.arc = np.stack([self.reach * swell * cos, 0.05 - (1.07 + rise) * swell * sin, 0 * angle - 0.05], 1)

    def behind(self) -> None:
        """What hangs behind the face."""
        if self.style in ("long", "curly", "fringe"):
            end, wide = {"long": (1.45, 1.2), "curly": (0.5, 1.0), "fringe": (0.85, 1.1)}[self.style]
            right = np.array([(wide, end * 0.5, -0.15), (wide, end, -0.1), (0.5, end * 1.05, -0.1)]) * (
                self.reach,
                1,
                1,
            )
            shape = np.concatenate([self.arc, mirrored(right)])
            self.canvas.paint([self.head.at(rounded(shape, 2))], self.color * 0.6)

    def before(self) -> None:
        """What lies on the head, with locks and strands."""
        if self.style == "bald":
            return
        head, t, fringe = self.head, np.linspace(-1, 1, 61), self.style == "fringe"
        line = -0.36 if fringe else head.who.hairline
        v = line + (0.12 - line) * np.abs(t) ** (6 if fringe else 3.2) + 0.03 * np.cos(9 * t) * (self.style == "short")
        hairline = surface(head.who.head_width * 0.98 * np.sin(t * np.pi / 2), v)
        hairline[:, 2] *= 1 - np.abs(t) ** 6
        outer, inner = head.at(self.arc), head.at(hairline)
        self._strands(outer, inner, self.canvas.paint([ribbon(outer, inner)], self.color))
        if self.style in ("long", "fringe"):
            end, w = (1.4, head.who.head_width) if self.style == "long" else (0.82, head.who.head_width)
            for side in (-1, 1):
                away = side * np.sin(np.radians(head.how.yaw))
                if away > 0.2:  # the lock lies behind the far cheek
                    continue
                edge = np.array([(self.reach, -0.3), (self.reach * 1.12, 0.5 * end), (self.reach * 1.1, end)])
                face = np.array([(0.86 * w, -0.42), (0.97 * w, 0.25), (0.9 * w, 0.7 * end), (0.98 * w, end)])
                one, other = (head.at(_along(x, side)) for x in (edge, face * (1 + 0.6 * max(away, 0), 1)))
                self._strands(one, other, self.canvas.paint([ribbon(one, other)], self.color), across=False)

    def _strands(self, outer: Points, inner: Points, area: Patch, across: bool = True) -> None:
        """Thin lighter and darker strands from one border to the other, or along them."""
        s = np.linspace(0, 1, 9)[:, None]
        for shade, draws in zip(
            (0.6, 1.3), np.random.default_rng(11).uniform(size=(2, 60 if across else 14, 3)), strict=True
        ):
            strands = []
            for a, b, c in draws:
                if across:
                    i, part = 1 + int(a * 58), 0.5 * b + s * (0.4 + 0.4 * c)
                    bend = (outer[30] - inner[30]) * 0.25 * np.sin(np.pi * part)
                    path = outer[i] * (1 - part) + inner[min(59, max(1, 2 * i - 30 + int(8 * c)))] * part + bend
                    wide = (outer[i + 1] - outer[i - 1]) * (0.1 + 0.2 * c)
                else:
                    rows = np.linspace(0.3 * b * 60, 60 * (0.7 + 0.3 * c), 9).astype(int)
                    path, wide = outer[rows] * a + inner[rows] * (1 - a), (outer[30] - inner[30]) * 0.04
                strands.append(ribbon(path - wide * np.sin(np.pi * s), path + wide * np.sin(np.pi * s)))
            self.canvas.paint(strands, self.color * shade + 0.03 * (shade > 1), 0.4, 0.008 * self.head.scale, area)


def _along(right: Points, side: int) -> Points:
    """[61, 3] a smooth line through (u, v) points of one side, just behind the face's edge."""
    smooth = rounded(right, 3, closed=False)
    at, where = np.linspace(0, 1, 61), np.linspace(0, 1, len(smooth))
    return np.stack([side * np.interp(at, where, smooth[:, 0]), np.interp(at, where, smooth[:, 1]), 0 * at], 1)
