"""Configurations out of keyword arguments, in which ``section__key`` stands for the option ``section.key``."""

from __future__ import annotations

from collections.abc import Mapping

from gemini_core.config import FusionConfig, from_flat
from gemini_core.types import MODALITIES


def dotted(options: Mapping[str, object]) -> dict[str, object]:
    """The options by their own names."""
    return {key.replace("__", "."): value for key, value in options.items()}


def config(*modalities: str, base: Mapping[str, object] | None = None, **options: object) -> FusionConfig:
    """Colour and these modalities (all, if none is named), with options that win over those of ``base``."""
    return beside_rgb(*(modalities or MODALITIES[1:]), base=base, **options)


def beside_rgb(*modalities: str, base: Mapping[str, object] | None = None, **options: object) -> FusionConfig:
    """Colour and no modalities but these, with options that win over those of ``base``."""
    return from_flat({"modalities": ["rgb", *modalities], **(base or {}), **dotted(options)})
