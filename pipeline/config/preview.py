"""Settings of `simswap preview`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.config.base import unit
from pipeline.config.swap import SwapConfig


class PreviewConfig(SwapConfig):
    """Settings of `simswap preview`: those of the swap, and what of it to show."""

    film: str | None = None
    """Video to show, by its path below `inputs`; None takes the first."""
    at_s: NonNegativeFloat | None = None
    """Second at which the clip begins; None begins where the contact sheet sees most of its faces."""
    seconds: Annotated[PositiveFloat, unit("s")] = 4.0
    """Length of the clip."""
    frames: Annotated[int, Field(ge=1, le=64)] = 12
    """Frames on the contact sheet, evenly over the whole video."""
    width: Annotated[int, Field(ge=64, le=7680), unit("px")] = 1920
    """Most pixels that the clip is wide: original and result side by side."""
