"""Procedural portraits with exact ground truth: who is in the picture, where, and what the true swap looks like.

Face coordinates: (u, v, z), u to the viewer's right, v down, z to the viewer; crown at v = -1, eyes near 0, chin at
v = 1. Frame coordinates: (x, y) px, origin at the centre of the top left pixel. Colours are RGB 0..1 until the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import Floats

HAIR_STYLES = ("bald", "short", "long", "curly", "fringe")
SUPERSAMPLING = 4
NOSE_LIFT = 0.17  # the tip stands this far off the ellipsoid
LIGHT_EXTENT, LIGHT_CELLS = 2.1, 224  # the light field reaches this far from the head's centre, in face units
SKIN = ((1.0, 0.86, 0.77), (0.95, 0.74, 0.60), (0.80, 0.57, 0.42), (0.58, 0.38, 0.27), (0.38, 0.24, 0.18))
IRIS = ((0.22, 0.12, 0.07), (0.48, 0.31, 0.14), (0.36, 0.50, 0.26), (0.25, 0.48, 0.74), (0.56, 0.64, 0.70))
HAIR = ((0.07, 0.06, 0.07), (0.22, 0.13, 0.09), (0.42, 0.22, 0.11), (0.72, 0.50, 0.25), (0.80, 0.77, 0.74))

Points = NDArray[np.float64]
Line = Points | float
Color = Sequence[float] | Points | Floats
Patch = tuple[int, int, Floats]  # left, top, pixels


def _palette(stops: Sequence[tuple[float, float, float]], at: float) -> Floats:
    """[3] colour at 0..1 along evenly spaced stops."""
    where = np.linspace(0, 1, len(stops))
    return np.array([np.interp(at, where, [stop[c] for stop in stops]) for c in range(3)], np.float32)


def _span(low: float, high: float, meaning: str, **more: Any) -> Any:
    """A field sampled from low..high; its meaning travels in the metadata."""
    return field(metadata={"span": (low, high), "meaning": meaning, "identity": more.pop("identity", False)}, **more)


_own = partial(_span, identity=True)  # a field that is identity


def _draw_uniform(kind: type, rng: np.random.Generator) -> dict[str, float]:
    return {f.name: float(rng.uniform(*f.metadata["span"])) for f in fields(kind)}


@dataclass(frozen=True, slots=True)
class Appearance:
    """Who somebody is. Lengths in face units (half the head's height); `_span` holds each range.

    The fields marked as identity are what a swap carries over; the rest (hair, head, clothes) stays with the target.
    """

    skin_tone: float = _own(0, 1, "Position along `SKIN`, light to dark.")
    eye_spacing: float = _own(0.26, 0.36, "Half the distance between the eye centres.")
    eye_width: float = _own(0.115, 0.17, "Half the width of one eye.")
    eye_roundness: float = _own(0.38, 0.68, "Height of the open eye over its width.")
    eye_tilt: float = _own(-9, 14, "Degrees by which the outer corner is higher than the inner.")
    eye_color: float = _own(0, 1, "Position along `IRIS`: brown, hazel, green, blue, grey.")
    brow_thickness: float = _own(0.03, 0.085, "Height of the brow at its inner end.")
    brow_angle: float = _own(-10, 18, "Degrees by which the outer end is higher than the inner.")
    brow_arch: float = _own(0.0, 0.07, "Rise of the middle over the straight line between the ends.")
    brow_height: float = _own(0.17, 0.26, "Distance from the eye centre up to the brow.")
    brow_color: float = _own(0, 0.85, "Position along `HAIR`.")
    nose_length: float = _own(0.30, 0.44, "From the eye line down to the tip.")
    nose_width: float = _own(0.10, 0.19, "Half the width across the wings.")
    nose_bridge: float = _own(0.035, 0.085, "Width (standard deviation) of the ridge.")
    mouth_height: float = _own(0.60, 0.70, "From the eye line down to the line between the lips.")
    mouth_width: float = _own(0.19, 0.31, "Half the distance between the corners at rest.")
    upper_lip: float = _own(0.025, 0.085, "Height of the upper lip.")
    lower_lip: float = _own(0.045, 0.115, "Height of the lower lip.")
    lip_color: float = _own(0, 1, "From the skin's own colour to deep rose.")
    cheekbones: float = _own(0, 1, "How far they stand out.")
    freckles: float = _own(-1, 1, "Density; none below 0.")
    beard: float = _own(-1.5, 1, "Density; clean-shaven below 0.")
    head_width: float = _span(0.70, 0.82, "Half the width of the head at the temples.")
    jaw_width: float = _span(0.66, 0.86, "Width at the jaw's corner over the head's width.")
    chin_width: float = _span(0.24, 0.46, "Width of the chin over the head's width.")
    hair_color: float = _span(0, 1, "Position along `HAIR`: black to grey.")
    hair_style: float = _span(0, len(HAIR_STYLES) - 1e-6, "The whole part is an index into `HAIR_STYLES`.")
    hair_volume: float = _span(0.06, 0.20, "Height of the hair above the skull.")
    hairline: float = _span(-0.74, -0.52, "v of the hairline in the middle of the forehead.")
    clothes: float = _span(0, 1, "Hue of the collar, once around the colour wheel.")

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Appearance:
        """Somebody, uniform over all ranges."""
        return cls(**_draw_uniform(cls, rng))

    def with_identity_of(self, source: Appearance) -> Appearance:
        """This head, hair and clothes with the source's features and their colours: the true swap."""
        return replace(self, **{f.name: getattr(source, f.name) for f in fields(self) if f.metadata["identity"]})


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a target keeps whoever is swapped in."""

    yaw: float = _span(-32, 32, "Degrees; positive turns to the viewer's right.", default=0)
    pitch: float = _span(-16, 16, "Degrees; positive looks up.", default=0)
    roll: float = _span(-20, 20, "Degrees; positive is clockwise in the frame.", default=0)
    smile: float = _span(-0.7, 1, "Mouth corners, -1 down to 1 up.", default=0)
    mouth_open: float = _span(-0.4, 0.9, "0 closed to 1 wide open; closed below 0.", default=0)
    eye_open: float = _span(0.45, 1.1, "0 shut to 1 open; more is surprised.", default=1)
    gaze_x: float = _span(-0.8, 0.8, "-1 viewer's left to 1 viewer's right.", default=0)
    gaze_y: float = _span(-0.6, 0.6, "-1 up to 1 down.", default=0)
    light_azimuth: float = _span(
        -75, 75, "Degrees from the camera's axis; positive lights from the viewer's right.", default=-30
    )
    light_elevation: float = _span(-5, 65, "Degrees above the horizon.", default=35)
    light_strength: float = _span(0.45, 0.95, "Of the direct light, 0..1.", default=0.7)
    light_warmth: float = _span(-1, 1, "-1 blue to 1 orange.", default=0)
    ambient: float = _span(0.25, 0.5, "Of the light from everywhere, 0..1.", default=0.4)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Attributes:
        """A pose, expression and light, uniform over all ranges."""
        return cls(**_draw_uniform(cls, rng))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a face is: the centre of the head (x, y) in frame pixels, and its height from crown to chin in pixels."""

    x: float
    y: float
    size_px: float


Face = tuple[Appearance, Attributes, Placement]


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """All that decides a scene; later faces cover earlier ones. Width and height in pixels."""

    faces: tuple[Face, ...]
    width: int
    height: int
    background_seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A rendered scene.

    Attributes:
        spec: what it was rendered from.
        frame: [H, W, 3] u8 RGB.
        landmarks: [N, 5, 2] eye centres, nose tip, mouth corners, viewer's left first, frame pixels; never rounded,
            and given for covered faces and outside the frame too.
        box: [N, 4] left, top, right, bottom of the face from forehead to chin, without hair and ears, frame pixels.
    """

    spec: SceneSpec
    frame: NDArray[np.uint8]
    landmarks: Floats
    box: Floats


def render(faces: Sequence[Face], width: int, height: int, background_seed: int) -> Scene:
    """The scene with these faces; the same arguments give the same bytes."""
    canvas = _Canvas(_background(width, height, background_seed))
    heads = [_Head(*face) for face in faces]
    for head in heads:
        _draw(canvas, head)
    frame = np.clip(canvas.frame * 255 + 0.5, 0, 255).astype(np.uint8)
    landmarks = np.array([head.landmarks() for head in heads], np.float32).reshape(-1, 5, 2)
    box = np.array([head.box() for head in heads], np.float32).reshape(-1, 4)
    return Scene(SceneSpec(tuple(faces), width, height, background_seed), frame, landmarks, box)


def swap(spec: SceneSpec, index: int, source: Appearance) -> Scene:
    """The true swap: face `index` with the source's identity, everything else as it was.

    Pose, expression, light, background, hair, head outline and clothes stay with the target. The shapes and colours of
    skin, eyes, brows, nose, mouth, freckles and beard are the source's, and so is where they sit in the face: use the
    landmarks of the scene returned. No pixel changes outside the head (with its ears).
    """
    faces = list(spec.faces)
    appearance, attributes, placement = faces[index]
    faces[index] = (appearance.with_identity_of(source), attributes, placement)
    return render(faces, spec.width, spec.height, spec.background_seed)


def embedding(appearance: Appearance, size: int = 512) -> Floats:
    """[size] unit-length identity vector; stands where a recogniser would when tables bring embeddings.

    A fixed random projection of the standardised identity parameters: the same for the same inner face whatever the
    pose, light or hair, and near orthogonal for two people drawn by `Appearance.sample`.
    """
    own = [f for f in fields(appearance) if f.metadata["identity"]]
    low, high = np.array([f.metadata["span"] for f in own]).T
    values = np.array([getattr(appearance, f.name) for f in own])
    standardised = (values - (low + high) / 2) / (high - low) * np.sqrt(12)
    vector = np.random.default_rng(512).standard_normal((size, len(own))) @ standardised
    return np.asarray(vector / max(np.linalg.norm(vector), 1e-12), np.float32)


class _Head:
    """The geometry of one face: face coordinates to frame pixels. Drawing and ground truth both go through it."""

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
        return self.at(_surface(u, v, lift))

    def outline(self) -> Points:
        """[K, 2] silhouette of the head in frame pixels, chin forward of the temples."""
        width, jaw, chin = self.who.head_width, self.who.jaw_width, self.who.chin_width
        right = np.array(
            [(0.40, -1.03, 0), (0.80, -0.86, 0), (1.03, -0.42, 0), (1.02, 0.1, 0), (0.95, 0.42, 0.04)]
            + [(jaw * 1.06, 0.72, 0.1), (chin * 1.2, 1.0, 0.3), (chin * 0.35, 1.05, 0.38)]
        )
        right *= (width * self.widening, 1, 1)
        right[5:, 1] += self.jaw_drop
        return self.at(_rounded(_mirrored(right)))

    def corners(self) -> tuple[float, float]:
        """u and v of the right mouth corner."""
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


def _surface(u: Line, v: Line, lift: Line = 0.0) -> Points:
    """[K, 3] face coordinates of points on the ellipsoid, raised by `lift`."""
    u, v, lift = np.broadcast_arrays(np.atleast_1d(u), v, lift)
    return np.stack([u, v, lift + 0.62 * np.sqrt(np.clip(1 - (u / 0.95) ** 2 - (v / 1.3) ** 2, 0.02, 1))], 1)


def _rounded(line: Points, rounds: int = 4, closed: bool = True) -> Points:
    """A polygon (or a polyline, ends kept) with its corners cut off, again and again: a smooth curve."""
    for _ in range(rounds):
        after = np.roll(line, -1, 0)
        cut = np.stack([0.75 * line + 0.25 * after, 0.25 * line + 0.75 * after], 1).reshape(-1, line.shape[1])
        line = cut if closed else np.concatenate([line[:1], cut[:-2], line[-1:]])
    return line


def _mirrored(right: Points) -> Points:
    """The right half of a polygon, top to bottom, and its mirror image."""
    return np.concatenate([right, (right * (-1, 1, 1)[: right.shape[1]])[::-1]])


def _ribbon(one: Points, other: Points) -> Points:
    """The area between two lines; for lines of one coordinate, its values there and back."""
    return np.concatenate([one, other[::-1]])


def _disc(radius: float, stretch: float = 1.0) -> tuple[Points, Points]:
    """u and v of an ellipse round the origin, [24] each."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return radius * np.cos(angle), radius * stretch * np.sin(angle)


class _Canvas:
    """A frame of floats that shapes are painted on, each in its own bounding box."""

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


def _relief(head: _Head) -> Points:
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


def _light(head: _Head, width: int, height: int, bumps: Points) -> Patch:
    """The light on a head as a colour per pixel of the frame around it: an ellipsoid with bumps under one lamp."""
    how, axis = head.how, np.linspace(-LIGHT_EXTENT, LIGHT_EXTENT, LIGHT_CELLS)
    u, v, su, sv, rise, lift = bumps.T
    x, y = head.view(_surface(u, v, lift)).T
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
    halfway = (lamp + (0, 0, 1)) / np.linalg.norm(lamp + (0, 0, 1))
    facing = np.clip((np.tensordot(lamp, normal, 1) + 0.25) / 1.25, 0, 1)[..., None]
    gloss = np.clip(np.tensordot(halfway, normal, 1), 0, 1)[..., None] ** 24
    direct = how.light_strength * (1 + how.light_warmth * np.array([0.10, 0.0, -0.14]))
    light = how.ambient * (0.75 + 0.25 * nz[..., None]) + direct * (facing ** (0.85, 1, 1.1) + 0.14 * gloss)
    return _warped(light.astype(np.float32), head, width, height)


def _warped(light: Floats, head: _Head, width: int, height: int) -> Patch:
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


def _draw(canvas: _Canvas, head: _Head) -> None:
    """One person, back to front. Hair is lit without the bumps: nothing outside the skin knows the identity."""
    height, width = canvas.frame.shape[:2]
    smooth, skin = _light(head, width, height, np.zeros((0, 6))), _palette(SKIN, head.who.skin_tone)
    hair = _Hair(canvas, head)
    canvas.light = smooth
    hair.behind()
    canvas.light = None
    _draw_clothes(canvas, head)
    canvas.light = _light(head, width, height, _relief(head))
    for side in (-1, 1):
        u, v = _disc(0.09, 2.0)
        ear = np.stack([side * head.who.head_width + u, v + 0.12 + 0.2 * u * side, 0 * u - 0.1], 1)
        canvas.paint([head.at(ear)], skin * 0.88)
    face = canvas.paint([head.outline()], skin)
    _draw_skin(canvas, head, skin, face)
    for side in (-1, 1):
        _draw_eye(canvas, head, side, skin, face)
    _draw_nose(canvas, head, skin, face)
    _draw_mouth(canvas, head, skin, face)
    canvas.light = smooth
    hair.before()


def _draw_clothes(canvas: _Canvas, head: _Head) -> None:
    """Shoulders and a high collar: no skin below the chin, so that a swap ends at the head."""
    hue = 2 * np.pi * (head.who.clothes + np.array([0, 1 / 3, 2 / 3]))
    cloth = 0.36 + 0.17 * np.cos(hue) * (1 if head.who.clothes < 0.8 else 0.3)
    cloth *= min(1.0, head.how.ambient + 0.7 * head.how.light_strength)
    centre, px = np.array([head.where.x, head.where.y]), head.scale
    right = np.array([(0.5, 1.15), (0.62, 1.38), (1.3, 1.62), (1.75, 2.1), (1.8, 9.0)])
    torso = np.concatenate([right * (-1, 1), right[::-1]])
    canvas.paint([centre + px * _rounded(torso, 3, closed=False)], cloth * 0.8)
    chin = head.at(np.array([(-0.46, 0.5, 0.0), (0.46, 0.5, 0.0)]))
    collar = np.concatenate([chin, centre + px * np.array([(0.62, 1.45), (0, 1.6), (-0.62, 1.45)])])
    canvas.paint([collar], cloth)
    shadow = head.at(np.array([(-0.4, 0.7, 0), (0.4, 0.7, 0), (0.3, 1.15, 0.1), (-0.3, 1.15, 0.1)]))
    canvas.paint([shadow], cloth * 0.25, 0.6, 0.09 * px)


def _draw_skin(canvas: _Canvas, head: _Head, skin: Floats, face: Patch) -> None:
    """Blush, eye sockets, freckles, beard."""
    who, px = head.who, head.scale
    u, v = _disc(1.0)
    for side in (-1, 1):
        cheek = head.on(side * 0.4 + 0.12 * u, 0.3 + 0.09 * v)
        canvas.paint([cheek], skin * (1.04, 0.72, 0.68), 0.4, 0.08 * px, face)
        socket = head.on(side * who.eye_spacing + 1.1 * who.eye_width * u, -0.03 + 0.12 * v)
        canvas.paint([socket], skin * (0.66, 0.54, 0.52), 0.5, 0.05 * px, face)
    if who.freckles > 0:
        spots = np.random.default_rng(7).uniform((-0.6, 0.02), (0.6, 0.5), (int(90 * who.freckles), 2))
        shapes = [head.on(x + 0.011 * u[::4], y + 0.011 * v[::4], 0.03) for x, y in spots]
        if shapes:
            canvas.paint(shapes, skin * (0.72, 0.55, 0.45), 0.55, 0, face)
    if who.beard > 0:
        nose, (mouth_u, mouth_v), w = who.nose_length, head.corners(), who.head_width
        moustache, jaw = [(0.06, nose + 0.12), (mouth_u + 0.05, mouth_v - 0.06)], [(1.1 * w, 0.2), (1.0 * w, 1.2)]
        right = np.array([*moustache, (0.62 * w, 0.6), (0.86 * w, 0.2), *jaw])
        beard = head.on(*_rounded(_mirrored(right), 2).T)
        canvas.paint([beard], _palette(HAIR, who.brow_color) * 0.8, 0.25 + 0.65 * who.beard, 0.035 * px, face)


def _draw_eye(canvas: _Canvas, head: _Head, side: int, skin: Floats, face: Patch) -> None:
    """One eye with its lids, lashes and brow; side -1 is the viewer's left."""
    who, how, px = head.who, head.how, head.scale
    t, wide, high = np.linspace(-1, 1, 21), who.eye_width, who.eye_width * who.eye_roundness
    wake = float(np.clip(how.eye_open - 0.12 * max(how.smile, 0), 0, 1.15))
    tilt = -side * t * wide * np.tan(np.radians(who.eye_tilt))
    upper = tilt + high * (0.36 - 1.46 * wake) * (1 - np.abs(t) ** 2.3)
    lower = tilt + high * (0.36 + 0.44 * wake) * (1 - t**2)

    def between(top: Points, bottom: Points, stretch: float = 1.0) -> Points:
        u = side * who.eye_spacing + wide * stretch * t
        return head.on(_ribbon(u, u), _ribbon(top, bottom))

    crease = upper - high * (0.34 + 0.1 * wake)
    canvas.paint([between(crease - 0.012, crease + 0.012 * t**2, 1.08)], skin * 0.5, 0.6, 0.008 * px, face)
    white = canvas.paint([between(upper, lower)], (0.93, 0.91, 0.90), clip=face)
    u, v = _disc(0.58 * max(wide * 0.85, 0.11))
    at_u, at_v = side * who.eye_spacing + 0.33 * wide * how.gaze_x, 0.3 * high * how.gaze_y - 0.08 * high
    iris = _palette(IRIS, who.eye_color)
    pupil = np.full(3, 0.02, np.float32)
    for size, color, shift in ((1.0, iris * 0.4, 0), (0.86, iris, 0), (0.6, iris * 1.35, 0.25), (0.45, pupil, 0)):
        canvas.paint([head.on(at_u + size * u, at_v + size * v + shift * v.max())], color, clip=white)
    canvas.paint([between(upper - 0.02, upper + 0.3 * high * (1 - t**2))], (0.1, 0.07, 0.07), 0.5, 0.012 * px, white)
    glint = -1 if how.light_azimuth < 0 else 1
    canvas.paint([head.on(at_u + glint * 0.03 + 0.2 * u, at_v - 0.028 + 0.2 * v)], (1.3, 1.3, 1.3), 0.9, clip=white)
    lash = 0.010 + 0.022 * (0.5 + 0.5 * side * t)
    canvas.paint([between(upper - lash, upper + 0.006, 1.05)], (0.09, 0.06, 0.06), 0.9, clip=face)
    canvas.paint([between(lower - 0.004, lower + 0.008)], skin * (0.5, 0.36, 0.34), 0.7, clip=face)
    along = np.linspace(0, 1, 15)
    u = side * (who.eye_spacing - 0.15 + 0.34 * along)
    middle = -who.brow_height - 0.05 * (how.eye_open - 1) - 0.3 * (along - 0.4) * np.tan(np.radians(who.brow_angle))
    middle -= who.brow_arch * np.sin(np.pi * along)
    half = who.brow_thickness * (1 - 0.8 * along**2) / 2 * np.minimum(1, 0.6 + 4 * along)
    brow = head.on(_ribbon(u, u), _ribbon(middle - half, middle + half))
    canvas.paint([brow], _palette(HAIR, who.brow_color) * 0.8, 0.9, 0.008 * px, face)


def _draw_nose(canvas: _Canvas, head: _Head, skin: Floats, face: Patch) -> None:
    """Shadow, wings, nostrils and shine; the ridge itself is relief."""
    px, nose, wing = head.scale, head.who.nose_length, head.who.nose_width
    u, v = _disc(1.0)
    dark = skin * (0.5, 0.36, 0.33)
    canvas.paint([head.on(wing * 0.9 * u, nose + 0.085 + 0.025 * v, 0.02)], dark, 0.6, 0.025 * px, face)
    for side in (-1, 1):
        t = np.linspace(-1.2, 1.5, 12)
        ring = (side * wing * (0.72 + 0.28 * np.cos(t)), nose + 0.025 + 0.055 * np.sin(t))
        curve = _ribbon(head.on(*ring, 0.05), head.on(ring[0] - side * 0.02, ring[1], 0.05))
        canvas.paint([curve], dark, 0.6, 0.006 * px, face)
        nostril = head.on(side * wing * 0.42 + 0.3 * wing * u, nose + 0.055 + 0.02 * v - side * u * 0.008, 0.1)
        canvas.paint([nostril], skin * (0.25, 0.14, 0.12), 0.85, 0.006 * px, face)
    canvas.paint([head.on(0.035 * u, nose - 0.015 + 0.03 * v, NOSE_LIFT)], (1.1, 1.08, 1.05), 0.25, 0.02 * px, face)


def _draw_mouth(canvas: _Canvas, head: _Head, skin: Floats, face: Patch) -> None:
    """Lips between the corners, teeth and tongue when it is open."""
    who, how, px = head.who, head.how, head.scale
    (corner, level), t = head.corners(), np.linspace(-1, 1, 33)
    u, arch, gape = corner * t, 1 - t**2, 0.2 * max(how.mouth_open, 0.0)
    line = level + 0.07 * how.smile * arch - 0.012 * np.exp(-((t / 0.15) ** 2))
    thin = 1 - 0.15 * max(how.smile, 0)
    above = line - thin * who.upper_lip * ((1 - np.abs(t) ** 1.7) - 0.28 * np.exp(-((t / 0.16) ** 2)))
    lips = skin * (1 - who.lip_color * np.array([0.10, 0.52, 0.42])) * (0.92, 0.72, 0.70)

    def between(top: Points, bottom: Points) -> Points:
        return head.on(_ribbon(u, u), _ribbon(top, bottom), 0.03 * _ribbon(arch, arch))

    below = line + gape * arch**0.7
    bottom = below + thin * who.lower_lip * arch**0.8
    canvas.paint([between(bottom, bottom + 0.05 * arch)], skin * (0.55, 0.42, 0.4), 0.5, 0.025 * px, face)
    canvas.paint([between(above, line + gape * 0.5 * arch)], lips * 0.86, clip=face)
    canvas.paint([between(line + gape * 0.5 * arch, bottom)], lips, clip=face)
    if gape:
        inside = canvas.paint([between(line, below)], (0.16, 0.05, 0.05), clip=face)
        canvas.paint(
            [between(line - 0.01, line + np.minimum(0.4 * gape, 0.07) * arch**0.4)], (0.95, 0.93, 0.88), clip=inside
        )
        canvas.paint([between(below - 0.35 * gape * arch, below + 0.02)], (0.62, 0.25, 0.25), 0.9, 0.015 * px, inside)
    canvas.paint([between(line - 0.008, line + 0.010 * arch + 0.002)], lips * 0.35, 0.85, 0.004 * px, face)
    shine = between(below + 0.35 * (bottom - below) - 0.006, below + 0.35 * (bottom - below) + 0.012)[12:-12]
    canvas.paint([shine], (1.1, 1.0, 1.0), 0.3, 0.012 * px, face)


class _Hair:
    """Hair from an outer arc over the skull to a hairline on the forehead, drawn in two goes: behind and before."""

    def __init__(self, canvas: _Canvas, head: _Head) -> None:
        who = head.who
        self.canvas, self.head, self.style = canvas, head, HAIR_STYLES[int(who.hair_style)]
        self.color = _palette(HAIR, who.hair_color)
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
            shape = np.concatenate([self.arc, _mirrored(right)])
            self.canvas.paint([self.head.at(_rounded(shape, 2))], self.color * 0.6)

    def before(self) -> None:
        """What lies on the head, with locks and strands."""
        if self.style == "bald":
            return
        head, t, fringe = self.head, np.linspace(-1, 1, 61), self.style == "fringe"
        line = -0.36 if fringe else head.who.hairline
        v = line + (0.12 - line) * np.abs(t) ** (6 if fringe else 3.2) + 0.03 * np.cos(9 * t) * (self.style == "short")
        hairline = _surface(head.who.head_width * 0.98 * np.sin(t * np.pi / 2), v)
        hairline[:, 2] *= 1 - np.abs(t) ** 6
        outer, inner = head.at(self.arc), head.at(hairline)
        self._strands(outer, inner, self.canvas.paint([_ribbon(outer, inner)], self.color))
        if self.style in ("long", "fringe"):
            end, w = (1.4, head.who.head_width) if self.style == "long" else (0.82, head.who.head_width)
            for side in (-1, 1):
                away = 1 + 0.7 * max(0.0, side * float(np.sin(np.radians(head.how.yaw))))  # the far lock lies behind
                edge = np.array([(self.reach, -0.3), (self.reach * 1.12, 0.5 * end), (self.reach * 1.1, end)])
                face = np.array([(0.86 * w, -0.42), (0.97 * w, 0.25), (0.9 * w, 0.7 * end), (0.98 * w, end)])
                one, other = (head.at(_along(x, side)) for x in (edge * (away, 1), face * (away, 1)))
                self._strands(one, other, self.canvas.paint([_ribbon(one, other)], self.color), across=False)

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
                strands.append(_ribbon(path - wide * np.sin(np.pi * s), path + wide * np.sin(np.pi * s)))
            self.canvas.paint(strands, self.color * shade + 0.03 * (shade > 1), 0.4, 0.008 * self.head.scale, area)


def _along(right: Points, side: int) -> Points:
    """[61, 3] a smooth line through (u, v) points of one side, just behind the face's edge."""
    smooth = _rounded(right, 3, closed=False)
    at, where = np.linspace(0, 1, 61), np.linspace(0, 1, len(smooth))
    return np.stack([side * np.interp(at, where, smooth[:, 0]), np.interp(at, where, smooth[:, 1]), 0 * at], 1)


def _background(width: int, height: int, seed: int) -> Floats:
    """[H, W, 3] smooth noise of several octaves over a gradient, with soft discs."""
    rng = np.random.default_rng(seed)
    hue = rng.uniform(-0.12, 0.12, 3)
    base, turn = rng.uniform(0.25, 0.65) + hue, rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    frame = (base + turn * (x * rng.uniform(-1, 1) + y - 0.5)[..., None]).astype(np.float32)
    for cells in (3, 6, 13, 28, 60):
        tile = rng.uniform(-1, 1, (cells, cells, 1)) * 0.25 + rng.uniform(-0.1, 0.1, (cells, cells, 3))
        tile = (tile / cells**0.7).astype(np.float32)
        frame += cv2.resize(tile, (width, height), interpolation=cv2.INTER_CUBIC)
    canvas, (u, v) = _Canvas(np.clip(frame, 0.02, 0.98)), _disc(1.0)
    for _ in range(5):
        at, radius = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.03, 0.12) * max(width, height)
        canvas.paint([np.stack([u, v], 1) * radius + at], base + rng.uniform(-0.25, 0.25, 3), 0.5, radius * 0.1)
    return canvas.frame
