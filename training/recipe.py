"""Recipes: YAML files of training options, by name or path; one may build on another (``base``) and override its keys."""

from __future__ import annotations

import os
from pathlib import Path

from gemini_core.config.files import read_flat
from gemini_core.errors import ConfigError, nearest_names, shown
from gemini_core.files import is_file

RECIPES = Path(__file__).parent / "recipes"
_BASE = "base"


def recipe_path(name_or_path: str, where: str = "--config", beside: Path | None = None) -> Path:
    """Find a recipe: a name of training/recipes, or the path of a YAML file, which may also be relative to ``beside``.

    Raises:
        ConfigError: neither; ``where`` says who asked.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return beside / path if beside is not None and is_file(beside / path) else path
    known = {recipe.stem: recipe for recipe in RECIPES.glob("*.yaml")}
    if name_or_path not in known:
        near = nearest_names(name_or_path, known)
        msg = f"{where}: expected a YAML file or the name of a recipe, got {shown(name_or_path)} ({near})"
        raise ConfigError(msg)
    return known[name_or_path]


def read_recipe(path: Path) -> dict[str, object]:
    """Read the options of a recipe and of the recipes that it builds on, by dotted key; nothing is checked but the bases.

    Raises:
        ConfigError: a file that cannot be read, a base that is none, or recipes that build on each other in a circle.
    """
    chain: list[Path] = []
    options: dict[str, object] = {}
    following: Path | None = path
    while following is not None:
        if os.path.realpath(following) in map(os.path.realpath, chain):  # Path.resolve fails at links in a circle
            circle = " -> ".join(str(each) for each in (*chain, following))
            msg = f"{following}: expected recipes of which one builds on no other, got a circle of bases: {circle}"
            raise ConfigError(msg)
        chain.append(following)
        own = read_flat(following)
        following = _base_of(own.pop(_BASE, None), following)
        options = own | options
    return options


def _base_of(base: object, path: Path) -> Path | None:
    if base is None:
        return None
    if not isinstance(base, str):
        msg = f"{path}: {_BASE}: expected the name or path of a recipe, got {shown(base)}"
        raise ConfigError(msg)
    found = recipe_path(base, f"{path}: {_BASE}", path.parent)
    if not is_file(found):
        msg = f"{path}: {_BASE}: expected a YAML file or the name of a recipe, got {shown(base)}, which is not there"
        raise ConfigError(msg)
    return found
