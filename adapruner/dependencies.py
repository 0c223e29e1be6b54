"""Which source files a result depends on: a module and all modules that it imports.

Imports are read from the code, so that the list can't fall behind it. The step cache and the
search's study use the same list.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

UNTRACKED = (
    # Settings are part of a cache key by their values: a new setting must not invalidate results.
    "adapruner.config",
    # These report, store and track results; they compute nothing.
    "adapruner.dependencies",
    "adapruner.errors",
    "adapruner.files",
    "adapruner.locks",
    "adapruner.progress",
    "adapruner.temporary",
    "steps.mlflow_support.tracking",
    "steps.zenml_support",
)
"""Modules, with all below them, whose code is not part of a cache key."""

_DATA_SUFFIXES = (".py", ".yaml")

_TEMPLATES = "templates"
"""The folder of a package whose files, which the package names among themselves, are part of it."""


def source_files(module: str, packages: tuple[str, ...]) -> list[Path]:
    """The files of `module`, of all modules of `packages` that it reaches, and of named data.

    A string constant that is the path of a module counts as an import of it, as in a table of
    implementations; one that names a file beside the module counts as a dependency. A package
    depends on all of its templates.
    """
    reached: dict[str, _Reached] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached[name] = _read(name)
            queue += [n for n in reached[name].modules if _is_tracked(n, packages)]
    return sorted({file for module in reached.values() for file in module.files})


@cache
def module_file(module: str) -> Path | None:
    """The file of a module of this project; None for any other name."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module):
        return None
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _is_tracked(module: str, packages: tuple[str, ...]) -> bool:
    if any(module == name or module.startswith(f"{name}.") for name in UNTRACKED):
        return False
    return module.startswith(tuple(f"{package}." for package in packages))


class _Reached(NamedTuple):
    """The modules that a module imports, or names as a string, and its files."""

    modules: frozenset[str]
    files: frozenset[Path]


@cache
def _read(module: str) -> _Reached:
    path = module_file(module)
    assert path is not None, module
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names, strings = set[str](), set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                strings.add(node.value)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names.update((base, *(f"{base}.{alias.name}" for alias in node.names)))
    files = {path.parent / s for s in strings if s.endswith(_DATA_SUFFIXES)}
    if path.name == "__init__.py":
        files.update(path.parent.glob(f"{_TEMPLATES}/*"))
    return _Reached(
        frozenset(filter(module_file, names | strings)),
        frozenset({path, *filter(Path.is_file, files)}),
    )


def _base(node: ast.ImportFrom, package: str) -> str:
    """The module from which a statement in `package` imports."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
