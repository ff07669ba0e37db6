"""Configurations out of keyword arguments, in which ``section__key`` stands for the option ``section.key``."""

from __future__ import annotations

from collections.abc import Mapping

from gemini_core.config import FusionConfig, from_flat


def dotted(options: Mapping[str, object]) -> dict[str, object]:
    """The options by their own names."""
    return {key.replace("__", "."): value for key, value in options.items()}


def config(*modalities: str, base: Mapping[str, object] | None = None, **options: object) -> FusionConfig:
    """Colour and these modalities (all, if none is named), with options that win over those of ``base``."""
    named = {"modalities": ["rgb", *modalities]} if modalities else {}
    return from_flat({**named, **(base or {}), **dotted(options)})
