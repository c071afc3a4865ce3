"""Who can be in a portrait: the parameters of faces and scenes, their ranges, samplers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Floats

HAIR_STYLES = ("bald", "short", "long", "curly", "fringe")
SKIN = ((1.0, 0.86, 0.77), (0.95, 0.74, 0.60), (0.80, 0.57, 0.42), (0.58, 0.38, 0.27), (0.38, 0.24, 0.18))
IRIS = ((0.22, 0.12, 0.07), (0.48, 0.31, 0.14), (0.36, 0.50, 0.26), (0.25, 0.48, 0.74), (0.56, 0.64, 0.70))
HAIR = ((0.07, 0.06, 0.07), (0.22, 0.13, 0.09), (0.42, 0.22, 0.11), (0.72, 0.50, 0.25), (0.80, 0.77, 0.74))


def palette(stops: Sequence[tuple[float, float, float]], at: float) -> Floats:
    """[3] colour at 0..1 along evenly spaced stops."""
    where = np.linspace(0, 1, len(stops))
    return np.array([np.interp(at, where, [stop[c] for stop in stops]) for c in range(3)], np.float32)


def _span(low: float, high: float, meaning: str, identity: bool = False) -> dict[str, Any]:
    """Metadata of a field that is sampled from low..high."""
    return {"span": (low, high), "meaning": meaning, "identity": identity}


_own = partial(_span, identity=True)  # of a field that is identity


def _draw_uniform(kind: type, rng: np.random.Generator) -> dict[str, float]:
    """A value for every field, uniform over its span."""
    return {f.name: float(rng.uniform(*f.metadata["span"])) for f in fields(kind)}


@dataclass(frozen=True, slots=True)
class Appearance:
    """Who somebody is. Lengths in face units (half the head's height); `_span` holds each range.

    The fields marked as identity are what a swap carries over; the rest (hair, head, clothes) stays with the target.
    """

    skin_tone: float = field(metadata=_own(0, 1, "Position along `SKIN`, light to dark."))
    eye_spacing: float = field(metadata=_own(0.26, 0.36, "Half the distance between the eye centres."))
    eye_width: float = field(metadata=_own(0.115, 0.17, "Half the width of one eye."))
    eye_roundness: float = field(metadata=_own(0.38, 0.68, "Height of the open eye over its width."))
    eye_tilt: float = field(metadata=_own(-9, 14, "Degrees by which the outer corner is higher than the inner."))
    eye_color: float = field(metadata=_own(0, 1, "Position along `IRIS`: brown, hazel, green, blue, grey."))
    brow_thickness: float = field(metadata=_own(0.03, 0.085, "Height of the brow at its inner end."))
    brow_angle: float = field(metadata=_own(-10, 18, "Degrees by which the outer end is higher than the inner."))
    brow_arch: float = field(metadata=_own(0.0, 0.07, "Rise of the middle over the straight line between the ends."))
    brow_height: float = field(metadata=_own(0.17, 0.26, "Distance from the eye centre up to the brow."))
    brow_color: float = field(metadata=_own(0, 0.85, "Position along `HAIR`."))
    nose_length: float = field(metadata=_own(0.30, 0.44, "From the eye line down to the tip."))
    nose_width: float = field(metadata=_own(0.10, 0.19, "Half the width across the wings."))
    nose_bridge: float = field(metadata=_own(0.035, 0.085, "Width (standard deviation) of the ridge."))
    mouth_height: float = field(metadata=_own(0.60, 0.70, "From the eye line down to the line between the lips."))
    mouth_width: float = field(metadata=_own(0.19, 0.31, "Half the distance between the corners at rest."))
    upper_lip: float = field(metadata=_own(0.025, 0.085, "Height of the upper lip."))
    lower_lip: float = field(metadata=_own(0.045, 0.115, "Height of the lower lip."))
    lip_color: float = field(metadata=_own(0, 1, "From the skin's own colour to deep rose."))
    cheekbones: float = field(metadata=_own(0, 1, "How far they stand out."))
    freckles: float = field(metadata=_own(-1, 1, "Density; none below 0."))
    beard: float = field(metadata=_own(-1.5, 1, "Density; clean-shaven below 0."))
    head_width: float = field(metadata=_span(0.70, 0.82, "Half the width of the head at the temples."))
    jaw_width: float = field(metadata=_span(0.66, 0.86, "Width at the jaw's corner over the head's width."))
    chin_width: float = field(metadata=_span(0.24, 0.46, "Width of the chin over the head's width."))
    hair_color: float = field(metadata=_span(0, 1, "Position along `HAIR`: black to grey."))
    hair_style: float = field(
        metadata=_span(0, len(HAIR_STYLES) - 1e-6, "The whole part is an index into `HAIR_STYLES`.")
    )
    hair_volume: float = field(metadata=_span(0.06, 0.20, "Height of the hair above the skull."))
    hairline: float = field(metadata=_span(-0.74, -0.52, "v of the hairline in the middle of the forehead."))
    clothes: float = field(metadata=_span(0, 1, "Hue of the collar, once around the colour wheel."))

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

    yaw: float = field(default=0, metadata=_span(-32, 32, "Degrees; positive turns to the viewer's right."))
    pitch: float = field(default=0, metadata=_span(-16, 16, "Degrees; positive looks up."))
    roll: float = field(default=0, metadata=_span(-20, 20, "Degrees; positive is clockwise in the frame."))
    smile: float = field(default=0, metadata=_span(-0.7, 1, "Mouth corners, -1 down to 1 up."))
    mouth_open: float = field(default=0, metadata=_span(-0.4, 0.9, "0 closed to 1 wide open; closed below 0."))
    eye_open: float = field(default=1, metadata=_span(0.45, 1.1, "0 shut to 1 open; more is surprised."))
    gaze_x: float = field(default=0, metadata=_span(-0.8, 0.8, "-1 viewer's left to 1 viewer's right."))
    gaze_y: float = field(default=0, metadata=_span(-0.6, 0.6, "-1 up to 1 down."))
    light_azimuth: float = field(
        default=-30, metadata=_span(-75, 75, "Degrees from the camera's axis; positive lights from the viewer's right.")
    )
    light_elevation: float = field(default=35, metadata=_span(-5, 65, "Degrees above the horizon."))
    light_strength: float = field(default=0.7, metadata=_span(0.45, 0.95, "Of the direct light, 0..1."))
    light_warmth: float = field(default=0, metadata=_span(-1, 1, "-1 blue to 1 orange."))
    ambient: float = field(default=0.4, metadata=_span(0.25, 0.5, "Of the light from everywhere, 0..1."))

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
