"""Which source files a result depends on: a module and all modules that it imports.

Imports are read from the code, so that the list can't fall behind it. The step cache and the
search's study use the same list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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


def source_files(module: str, packages: tuple[str, ...]) -> list[Path]:
    """The files of `module`, of all modules of `packages` that it reaches, and of named data.

    A string constant that is the path of a module counts as an import of it, as in a table of
    implementations; one that names a file beside the module counts as a dependency.
    """
    reached: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += [n for n in _imports(name) if _is_tracked(n, packages)]
    return sorted({file for name in reached for file in _files_of(name)})


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


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of this project that `module` imports, or names as a string, anywhere in its text."""
    path = module_file(module)
    if path is None:
        return frozenset()
    return frozenset(n for n in _imported_names(_tree(path), module, path) if module_file(n))


def _imported_names(tree: ast.AST, module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _files_of(module: str) -> frozenset[Path]:
    path = module_file(module)
    assert path is not None, module
    strings = (n.value for n in ast.walk(_tree(path)) if isinstance(n, ast.Constant))
    named = {path.parent / s for s in strings if isinstance(s, str) and s.endswith(_DATA_SUFFIXES)}
    return frozenset({path, *(file for file in named if file.is_file())})


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
