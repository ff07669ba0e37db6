"""What a Python source imports, read from its syntax tree, imports inside functions and by name (`import_module`) included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def module_name(path: Path) -> str:
    """Dotted name of a file of the project."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(*folders: str) -> Iterator[Path]:
    """Every Python file in these folders of the project."""
    for folder in folders:
        yield from sorted((REPOSITORY / folder).rglob("*.py"))


def imported_names(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Dotted names that a module's source imports; ``from a import b`` gives ``a.b``, relative ones are resolved."""
    names: set[str] = set()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                names.add(str(first.value))
    return names


def imports_of_file(path: Path) -> set[str]:
    """Dotted names that a file of the project imports."""
    return imported_names(path.read_text(encoding="utf-8"), module_name(path), is_package=path.name == "__init__.py")
