"""Settings of `simswap describe`."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import Section


class DescribeConfig(Section):
    """Settings of `simswap describe`."""

    form: Literal["contract", "schema"] = "contract"
    """`contract`: what commands take, touch and answer. `schema`: JSON Schema of one command's settings file, by which
    editors check YAML."""
