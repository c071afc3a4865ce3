"""The learning rate as a function of the step alone: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from pipeline.config import OptimiserConfig


def rate_factor(settings: OptimiserConfig, step: int, steps: int) -> float:
    """Part of the highest learning rate that a step uses.

    Args:
        settings: warm-up and decay.
        step: optimiser steps done before.
        steps: in all.

    Returns:
        0..1: rising linearly over the warm-up, then falling to `final_fraction` at the last step.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return 1.0
    done = min((step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1), 1.0)
    left = 1.0 - done if settings.decay == "linear" else (1.0 + math.cos(math.pi * done)) / 2.0
    return settings.final_fraction + (1.0 - settings.final_fraction) * left
