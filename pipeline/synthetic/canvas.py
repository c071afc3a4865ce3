"""Where a face lies in the frame, how it is lit, and the frame that its shapes are painted on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.people import Appearance, Attributes, Placement
from pipeline.types import Floats

SUPERSAMPLING = 4
NOSE_LIFT = 0.17  # the tip stands this far off the ellipsoid
LIGHT_EXTENT, LIGHT_CELLS = 2.1, 224  # the light field reaches this far from the head's centre, in face units

Points = NDArray[np.float64]
Line = Points | float
Color = Sequence[float] | Points | Floats
Patch = tuple[int, int, Floats]  # left, top, pixels


class Head:
    """The geometry of one face: face coordinates to frame pixels. Drawing and ground truth both go through it.

    Face coordinates: (u, v, z), u to the viewer's right, v down, z to the viewer; crown at v = -1, eyes near 0, chin
    at v = 1. Frame coordinates: (x, y) px, origin at the centre of the top left pixel.
    """

    def __init__(self, who: Appearance, how: Attributes, where: Placement) -> None:
        self.who, self.how, self.where = who, how, where
        self.scale = where.size_px / 2
        cos, sin = np.cos(np.radians(how.roll)), np.sin(np.radians(how.roll))
        self.turn = np.array([[cos, -sin], [sin, cos]])
        self.widening = 0.35 + 0.65 / np.cos(np.radians(how.yaw))  # heads are as deep as wide: they hardly narrow
        self.jaw_drop = 0.08 * max(how.mouth_open, 0.0)

    def view(self, points: Points) -> Points:
        """[K, 3] face coordinates to [K, 2] after yaw, pitch and mild perspective; not yet rolled."""
        yaw, pitch = np.radians(self.how.yaw), np.radians(self.how.pitch)
        u, v, z = points.T
        x, z = u * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - u * np.sin(yaw)
        y, z = v * np.cos(pitch) - z * np.sin(pitch), z * np.cos(pitch) + v * np.sin(pitch)
        return np.asarray(np.stack([x, y], 1) / (1 - 0.1 * (z[:, None] - 0.5)))

    def at(self, points: Points) -> Points:
        """[K, 3] face coordinates to [K, 2] frame pixels."""
        return np.asarray(self.view(points) @ self.turn.T * self.scale + (self.where.x, self.where.y))

    def on(self, u: Line, v: Line, lift: Line = 0.0) -> Points:
        """Points of the face's surface, raised by `lift`, to [K, 2] frame pixels."""
        return self.at(surface(u, v, lift))

    def outline(self) -> Points:
        """[K, 2] silhouette of the head in frame pixels, chin forward of the temples."""
        width, jaw, chin = self.who.head_width, self.who.jaw_width, self.who.chin_width
        skull = [(0.40, -1.03, 0), (0.80, -0.86, 0), (1.03, -0.42, 0), (1.02, 0.1, 0), (0.95, 0.42, 0.04)]
        right = np.array([*skull, (jaw * 1.06, 0.72, 0.1), (chin * 1.2, 1.0, 0.3), (chin * 0.35, 1.05, 0.38)])
        right *= (width * self.widening, 1, 1)
        right[5:, 1] += self.jaw_drop
        return self.at(rounded(mirrored(right)))

    def corners(self) -> tuple[float, float]:
        """Where (u, v) the right mouth corner is."""
        who, smile = self.who, self.how.smile
        return who.mouth_width * (1 + 0.16 * smile), who.mouth_height - 0.07 * smile + self.jaw_drop * 0.3

    def landmarks(self) -> Points:
        """[5, 2] in frame pixels."""
        (u, v), who = self.corners(), self.who
        nose = NOSE_LIFT
        x, y = [-who.eye_spacing, who.eye_spacing, 0, -u, u], [0, 0, who.nose_length, v, v]
        return self.on(np.array(x), np.array(y), np.array([0, 0, nose, 0, 0]))

    def box(self) -> Points:
        """[4] left, top, right, bottom in frame pixels."""
        outline = self.outline()
        above = ((outline - (self.where.x, self.where.y)) @ self.turn)[:, 1] < -0.65 * self.scale
        return np.concatenate([outline[~above].min(0), outline[~above].max(0)])


def surface(u: Line, v: Line, lift: Line = 0.0) -> Points:
    """[K, 3] face coordinates of points on the ellipsoid, raised by `lift`."""
    u, v, lift = np.broadcast_arrays(np.atleast_1d(u), v, lift)
    return np.stack([u, v, lift + 0.62 * np.sqrt(np.clip(1 - (u / 0.95) ** 2 - (v / 1.3) ** 2, 0.02, 1))], 1)


def rounded(line: Points, rounds: int = 4, closed: bool = True) -> Points:
    """A polygon (or a polyline, ends kept) with its corners cut off, again and again: a smooth curve."""
    for _ in range(rounds):
        after = np.roll(line, -1, 0)
        cut = np.stack([0.75 * line + 0.25 * after, 0.25 * line + 0.75 * after], 1).reshape(-1, line.shape[1])
        line = cut if closed else np.concatenate([line[:1], cut[:-2], line[-1:]])
    return line


def mirrored(right: Points) -> Points:
    """The right half of a polygon, top to bottom, and its mirror image."""
    return np.concatenate([right, (right * (-1, 1, 1)[: right.shape[1]])[::-1]])


def ribbon(one: Points, other: Points) -> Points:
    """The area between two lines; for lines of one coordinate, its values there and back."""
    return np.concatenate([one, other[::-1]])


def disc(radius: float, stretch: float = 1.0) -> tuple[Points, Points]:
    """An ellipse round the origin: its u and its v, [24] each."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return radius * np.cos(angle), radius * stretch * np.sin(angle)


class Canvas:
    """A frame of floats, RGB 0..1, that shapes are painted on, each in its own bounding box."""

    def __init__(self, frame: Floats) -> None:
        self.frame = frame
        self.light: Patch | None = None

    def paint(
        self, shapes: Sequence[Points], color: Color, opacity: float = 1, blur_px: float = 0, clip: Patch | None = None
    ) -> Patch:
        """Blends a colour, lit by `light`, over polygons in frame pixels; returns where."""
        points, margin = np.concatenate(shapes), 3 * blur_px + 1
        left, top = (int(n) for n in np.floor(points.min(0) - margin))
        right, bottom = (int(n) for n in np.ceil(points.max(0) + margin) + 1)
        for x, y, limit in [(0, 0, self.frame)] + [patch for patch in (clip, self.light) if patch]:
            left, top = max(left, x), max(top, y)
            right, bottom = min(right, x + limit.shape[1]), min(bottom, y + limit.shape[0])
        if right <= left or bottom <= top:
            return 0, 0, np.zeros((0, 0), np.float32)
        fine = SUPERSAMPLING if blur_px < 2 else 1
        drawn = np.zeros(((bottom - top) * fine, (right - left) * fine), np.uint8)
        for shape in shapes:
            corners = ((shape - (left, top) + 0.5) * fine - 0.5) * 16
            cv2.fillPoly(drawn, [np.round(corners).astype(np.int32)], (255,), shift=4)
        drawn_once = cv2.resize(drawn, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        mask = drawn_once.astype(np.float32) * np.float32(opacity / 255)
        if blur_px:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), blur_px), np.float32)
        area = (slice(top, bottom), slice(left, right))
        if clip:
            mask = mask * _part(clip, area)
        tint = np.asarray(color, np.float32)
        region = self.frame[area]
        region += mask[..., None] * ((tint * _part(self.light, area) if self.light else tint) - region)
        return left, top, mask


def _part(patch: Patch, area: tuple[slice, slice]) -> Floats:
    """What a patch holds for an area of the frame."""
    x, y, pixels = patch
    return pixels[area[0].start - y : area[0].stop - y, area[1].start - x : area[1].stop - x]


def relief(head: Head) -> Points:
    """[K, 6] the face's bumps as bell curves: u, v, their widths along u and v, height, lift off the ellipsoid."""
    who, smile = head.who, head.how.smile
    nose, mouth, wing, eye = who.nose_length, who.mouth_height + head.jaw_drop * 0.3, who.nose_width, who.eye_spacing
    middle = [
        (0, nose * k, who.nose_bridge * (0.8 + 0.3 * k), 0.09, 0.03 + 0.05 * k, NOSE_LIFT * k) for k in (0.1, 0.4, 0.7)
    ]
    middle.append((0, nose, 0.5 * wing, 0.055, 0.07, NOSE_LIFT))  # tip of the nose
    middle.append((0, mouth, 0.2, 0.12, 0.05, 0))
    middle.append((0, mouth + who.lower_lip + 0.06, 0.1, 0.035, -0.025, 0))  # dent below the lip
    middle.append((0, 0.9, 0.13, 0.09, 0.05, 0))  # chin
    right = [(0.8 * wing, nose + 0.03, 0.3 * wing, 0.04, 0.025, 0.04)]  # wing of the nose
    right.append((eye, 0, 0.1, 0.06, 0.03, 0))  # eyeball
    right.append((eye - 0.03, -0.04, 0.15, 0.10, -0.06, 0))  # socket
    right.append((0.3, -who.brow_height, 0.16, 0.05, 0.02, 0))
    right.append((0.43, 0.26, 0.15, 0.12, 0.03 + 0.06 * who.cheekbones + 0.03 * smile, 0))
    right.append((wing + 0.12, (nose + mouth) / 2, 0.04, 0.1, -0.015 * (1 + smile), 0))  # fold beside the mouth
    return np.concatenate([np.array(middle), np.array(right), np.array(right) * (-1, 1, 1, 1, 1, 1)])


def light_on(head: Head, width: int, height: int, bumps: Points) -> Patch:
    """The light on a head as a colour per pixel of the frame around it: an ellipsoid with bumps under one lamp."""
    how, axis = head.how, np.linspace(-LIGHT_EXTENT, LIGHT_EXTENT, LIGHT_CELLS)
    u, v, su, sv, rise, lift = bumps.T
    x, y = head.view(surface(u, v, lift)).T
    across = np.exp(-(((axis - x[:, None]) / su[:, None]) ** 2) / 2) * rise[:, None]
    down = np.exp(-(((axis - y[:, None]) / sv[:, None]) ** 2) / 2)
    slope_y, slope_x = np.gradient((down.T @ across).astype(np.float32), axis[1] - axis[0])
    nx, ny = np.meshgrid((axis / (1.1 * head.who.head_width)).astype(np.float32), (axis / 1.2).astype(np.float32))
    inside = np.minimum(1, 0.93 / np.maximum(np.hypot(nx, ny), 1e-6))
    nz = np.sqrt(1 - (nx * inside) ** 2 - (ny * inside) ** 2)
    normal = np.stack([nx * inside - slope_x, ny * inside - slope_y, nz])
    normal /= np.sqrt((normal**2).sum(0))
    azimuth, elevation = np.radians(how.light_azimuth), np.radians(how.light_elevation)
    sideways = np.array([np.sin(azimuth) * np.cos(elevation), -np.sin(elevation)]) @ head.turn
    lamp = np.array([*sideways, np.cos(azimuth) * np.cos(elevation)])
    halfway = lamp + np.array([0, 0, 1])
    facing = np.clip((np.tensordot(lamp, normal, 1) + 0.25) / 1.25, 0, 1)[..., None]
    gloss = np.clip(np.tensordot(halfway / np.linalg.norm(halfway), normal, 1), 0, 1)[..., None] ** 24
    direct = how.light_strength * (1 + how.light_warmth * np.array([0.10, 0.0, -0.14]))
    light = how.ambient * (0.75 + 0.25 * nz[..., None]) + direct * (facing ** (0.85, 1, 1.1) + 0.14 * gloss)
    return _warped(light.astype(np.float32), head, width, height)


def _warped(light: Floats, head: Head, width: int, height: int) -> Patch:
    """A field over the unrolled view, as far as LIGHT_EXTENT, to the frame pixels that it covers."""
    reach, x, y = LIGHT_EXTENT * head.scale, head.where.x, head.where.y
    left, top, right, bottom = max(0, int(x - reach)), max(0, int(y - reach)), int(x + reach) + 1, int(y + reach) + 1
    right, bottom = min(width, right), min(height, bottom)
    if right <= left or bottom <= top:
        return left, top, np.zeros((0, 0, 3), np.float32)
    corner = head.turn @ (-reach, -reach) + (x - left, y - top)
    matrix = np.concatenate([head.turn * 2 * reach / (LIGHT_CELLS - 1), corner[:, None]], 1)
    pixels = cv2.warpAffine(light, matrix, (right - left, bottom - top), borderMode=cv2.BORDER_REPLICATE)
    return left, top, np.asarray(pixels, np.float32)
