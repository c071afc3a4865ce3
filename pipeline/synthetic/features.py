"""Draws one person: clothes, skin, eyes, nose and mouth, with the hair around them."""

from __future__ import annotations

import numpy as np

from pipeline.synthetic.canvas import (
    NOSE_LIFT,
    Canvas,
    Head,
    Patch,
    Points,
    disc,
    light_on,
    mirrored,
    relief,
    ribbon,
    rounded,
)
from pipeline.synthetic.hair import Hair
from pipeline.synthetic.people import HAIR, IRIS, SKIN, palette
from pipeline.types import Floats


def draw_person(canvas: Canvas, head: Head) -> None:
    """One person, back to front. Hair is lit without the bumps: nothing outside the skin knows the identity."""
    height, width = canvas.frame.shape[:2]
    smooth, skin = light_on(head, width, height, np.zeros((0, 6))), palette(SKIN, head.who.skin_tone)
    hair = Hair(canvas, head)
    canvas.light = smooth
    hair.behind()
    canvas.light = None
    _draw_clothes(canvas, head)
    canvas.light = light_on(head, width, height, relief(head))
    for side in (-1, 1):
        u, v = disc(0.09, 2.0)
        ear = np.stack([side * head.who.head_width + u, v + 0.12 + 0.2 * u * side, 0 * u - 0.1], 1)
        canvas.paint([head.at(ear)], skin * 0.88)
    face = canvas.paint([head.outline()], skin)
    _draw_skin(canvas, head, skin, face)
    for side in (-1, 1):
        _draw_eye(canvas, head, side, skin, face)
        _draw_brow(canvas, head, side, face)
    _draw_nose(canvas, head, skin, face)
    _draw_mouth(canvas, head, skin, face)
    canvas.light = smooth
    hair.before()


def _draw_clothes(canvas: Canvas, head: Head) -> None:
    """Shoulders and a high collar: no skin below the chin, so that a swap ends at the head."""
    hue = 2 * np.pi * (head.who.clothes + np.array([0, 1 / 3, 2 / 3]))
    cloth = 0.36 + 0.17 * np.cos(hue) * (1 if head.who.clothes < 0.8 else 0.3)
    cloth *= min(1.0, head.how.ambient + 0.7 * head.how.light_strength)
    centre, px = np.array([head.where.x, head.where.y]), head.scale
    right = np.array([(0.5, 1.15), (0.62, 1.38), (1.3, 1.62), (1.75, 2.1), (1.8, 9.0)])
    torso = np.concatenate([right * (-1, 1), right[::-1]])
    canvas.paint([centre + px * rounded(torso, 3, closed=False)], cloth * 0.8)
    chin = head.at(np.array([(-0.46, 0.5, 0.0), (0.46, 0.5, 0.0)]))
    collar = np.concatenate([chin, centre + px * np.array([(0.62, 1.45), (0, 1.6), (-0.62, 1.45)])])
    canvas.paint([collar], cloth)
    shadow = head.at(np.array([(-0.4, 0.7, 0), (0.4, 0.7, 0), (0.3, 1.15, 0.1), (-0.3, 1.15, 0.1)]))
    canvas.paint([shadow], cloth * 0.25, 0.6, 0.09 * px)


def _draw_skin(canvas: Canvas, head: Head, skin: Floats, face: Patch) -> None:
    """Blush, eye sockets, freckles, beard."""
    who, px = head.who, head.scale
    u, v = disc(1.0)
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
        beard = head.on(*rounded(mirrored(right), 2).T)
        canvas.paint([beard], palette(HAIR, who.brow_color) * 0.8, 0.25 + 0.65 * who.beard, 0.035 * px, face)


def _draw_eye(canvas: Canvas, head: Head, side: int, skin: Floats, face: Patch) -> None:
    """One eye with its lids and lashes; side -1 is the viewer's left."""
    who, how, px = head.who, head.how, head.scale
    t, wide, high = np.linspace(-1, 1, 21), who.eye_width, who.eye_width * who.eye_roundness
    wake = float(np.clip(how.eye_open - 0.12 * max(how.smile, 0), 0, 1.15))
    tilt = -side * t * wide * np.tan(np.radians(who.eye_tilt))
    upper = tilt + high * (0.36 - 1.46 * wake) * (1 - np.abs(t) ** 2.3)
    lower = tilt + high * (0.36 + 0.44 * wake) * (1 - t**2)

    def between(top: Points, bottom: Points, stretch: float = 1.0) -> Points:
        u = side * who.eye_spacing + wide * stretch * t
        return head.on(ribbon(u, u), ribbon(top, bottom))

    crease = upper - high * (0.34 + 0.1 * wake)
    canvas.paint([between(crease - 0.012, crease + 0.012 * t**2, 1.08)], skin * 0.5, 0.6, 0.008 * px, face)
    white = canvas.paint([between(upper, lower)], (0.93, 0.91, 0.90), clip=face)
    u, v = disc(0.58 * max(wide * 0.85, 0.11))
    at_u, at_v = side * who.eye_spacing + 0.33 * wide * how.gaze_x, 0.3 * high * how.gaze_y - 0.08 * high
    iris = palette(IRIS, who.eye_color)
    pupil = np.full(3, 0.02, np.float32)
    for size, color, shift in ((1.0, iris * 0.4, 0), (0.86, iris, 0), (0.6, iris * 1.35, 0.25), (0.45, pupil, 0)):
        canvas.paint([head.on(at_u + size * u, at_v + size * v + shift * v.max())], color, clip=white)
    canvas.paint([between(upper - 0.02, upper + 0.3 * high * (1 - t**2))], (0.1, 0.07, 0.07), 0.5, 0.012 * px, white)
    glint = -1 if how.light_azimuth < 0 else 1
    canvas.paint([head.on(at_u + glint * 0.03 + 0.2 * u, at_v - 0.028 + 0.2 * v)], (1.3, 1.3, 1.3), 0.9, clip=white)
    lash = 0.010 + 0.022 * (0.5 + 0.5 * side * t)
    canvas.paint([between(upper - lash, upper + 0.006, 1.05)], (0.09, 0.06, 0.06), 0.9, clip=face)
    canvas.paint([between(lower - 0.004, lower + 0.008)], skin * (0.5, 0.36, 0.34), 0.7, clip=face)


def _draw_brow(canvas: Canvas, head: Head, side: int, face: Patch) -> None:
    """One brow; side -1 is the viewer's left."""
    who, how, px = head.who, head.how, head.scale
    along = np.linspace(0, 1, 15)
    u = side * (who.eye_spacing - 0.15 + 0.34 * along)
    middle = -who.brow_height - 0.05 * (how.eye_open - 1) - 0.3 * (along - 0.4) * np.tan(np.radians(who.brow_angle))
    middle -= who.brow_arch * np.sin(np.pi * along)
    half = who.brow_thickness * (1 - 0.8 * along**2) / 2 * np.minimum(1, 0.6 + 4 * along)
    brow = head.on(ribbon(u, u), ribbon(middle - half, middle + half))
    canvas.paint([brow], palette(HAIR, who.brow_color) * 0.8, 0.9, 0.008 * px, face)


def _draw_nose(canvas: Canvas, head: Head, skin: Floats, face: Patch) -> None:
    """Shadow, wings, nostrils and shine; the ridge itself is relief."""
    px, nose, wing = head.scale, head.who.nose_length, head.who.nose_width
    u, v = disc(1.0)
    dark = skin * (0.5, 0.36, 0.33)
    canvas.paint([head.on(wing * 0.9 * u, nose + 0.085 + 0.025 * v, 0.02)], dark, 0.6, 0.025 * px, face)
    for side in (-1, 1):
        t = np.linspace(-1.2, 1.5, 12)
        ring = (side * wing * (0.72 + 0.28 * np.cos(t)), nose + 0.025 + 0.055 * np.sin(t))
        curve = ribbon(head.on(*ring, 0.05), head.on(ring[0] - side * 0.02, ring[1], 0.05))
        canvas.paint([curve], dark, 0.6, 0.006 * px, face)
        nostril = head.on(side * wing * 0.42 + 0.3 * wing * u, nose + 0.055 + 0.02 * v - side * u * 0.008, 0.1)
        canvas.paint([nostril], skin * (0.25, 0.14, 0.12), 0.85, 0.006 * px, face)
    canvas.paint([head.on(0.035 * u, nose - 0.015 + 0.03 * v, NOSE_LIFT)], (1.1, 1.08, 1.05), 0.25, 0.02 * px, face)


def _draw_mouth(canvas: Canvas, head: Head, skin: Floats, face: Patch) -> None:
    """Lips between the corners, teeth and tongue when it is open."""
    who, how, px = head.who, head.how, head.scale
    (corner, level), t = head.corners(), np.linspace(-1, 1, 33)
    u, arch, gape = corner * t, 1 - t**2, 0.2 * max(how.mouth_open, 0.0)
    line = level + 0.07 * how.smile * arch - 0.012 * np.exp(-((t / 0.15) ** 2))
    thin = 1 - 0.15 * max(how.smile, 0)
    above = line - thin * who.upper_lip * ((1 - np.abs(t) ** 1.7) - 0.28 * np.exp(-((t / 0.16) ** 2)))
    lips = skin * (1 - who.lip_color * np.array([0.10, 0.52, 0.42])) * (0.92, 0.72, 0.70)

    def between(top: Points, bottom: Points) -> Points:
        return head.on(ribbon(u, u), ribbon(top, bottom), 0.03 * ribbon(arch, arch))

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
