"""What a step's result depends on beside its inputs, and what becomes of results that vanish.

The cache key of a step holds its parameters and the content hashes of its inputs (ZenML's part),
and the files of this project that compute the result (ours): the step's own file and every library
module that it imports, directly or through others. The list is read from the import statements, so
it can't fall behind the code.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from zenml import step
from zenml.client import Client
from zenml.config.cache_policy import CachePolicy
from zenml.enums import ExecutionStatus
from zenml.models import StepRunUpdate
from zenml.steps import BaseStep
from zenml.utils import source_utils
from zenml.utils.pagination_utils import depaginate
from zenml.utils.time_utils import utc_now

from steps.zenml_support.materializer import DirectoryMaterializer, complete, intact

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("adapruner.", "steps.")
UNTRACKED = frozenset(
    {
        # Settings reach the key as parameters: a new one must not throw away all results.
        "adapruner.config",
        # These say and store what was computed; they compute nothing.
        "adapruner.evaluation_config",
        "adapruner.section",
        "adapruner.errors",
        "adapruner.parsing",
        "adapruner.progress",
        "steps.cache",
        "steps.materializer",
        "steps.tracking",
        "steps.workspace",
    }
)

logger = logging.getLogger(__name__)


def cached_step(function: Callable[..., Any]) -> BaseStep:
    """A step that returns directories and runs only where its inputs or its code changed."""
    policy = CachePolicy(file_dependencies=file_dependencies(function.__module__))
    return step(output_materializers=DirectoryMaterializer, cache_policy=policy)(function)


def uncached_step(function: Callable[..., Any]) -> BaseStep:
    """A step that returns directories and runs every time, because it looks at the world."""
    return step(output_materializers=DirectoryMaterializer, enable_cache=False)(function)


def file_dependencies(module: str) -> list[str]:
    """Files that the results of `module` depend on: itself and the library modules it reaches.

    Paths are relative to ZenML's source root, so that the key is the same on every machine; where
    the project is installed outside that root they are absolute.
    """
    files = sorted(_reached_files(module))
    root = Path(source_utils.get_source_root()).resolve()
    return [str(f.relative_to(root) if f.is_relative_to(root) else f) for f in files]


def forget_vanished() -> list[str]:
    """Take step runs whose artifacts are gone, altered or incomplete out of the cache's candidates.

    ZenML doesn't look whether a cached artifact still exists, and a part that failed may do better
    another time. Called before a run is planned, this
    makes such a step run again instead of letting its consumers die. Returns the artifacts' URIs.
    """
    client = Client()
    versions = depaginate(
        client.list_artifact_versions,
        artifact_store_id=client.active_stack.artifact_store.id,
        materializer=f"contains:{DirectoryMaterializer.__name__}",
        size=1000,
    )
    gone = [
        v for v in versions if v.uri and not (intact(v.uri, v.content_hash) and complete(v.uri))
    ]
    candidates = _cache_candidates() if gone else frozenset()
    forgotten = []
    for version in gone:
        # The store, not the client: in a pipeline's body the client's getters only make promises.
        producer = client.zen_store.get_artifact_version(version.id).producer_step_run_id
        if producer in candidates:
            expired = StepRunUpdate(cache_expires_at=utc_now() - timedelta(seconds=1))
            client.zen_store.update_run_step(producer, expired)
            logger.warning(
                "The files of %s are gone, altered or incomplete: they are made again.", version.uri
            )
            forgotten.append(version.uri)
    return forgotten


def _cache_candidates() -> frozenset[UUID]:
    runs = depaginate(
        Client().list_run_steps, status=ExecutionStatus.COMPLETED, cache_expired=False, size=1000
    )
    return frozenset(run.id for run in runs)


def _reached_files(module: str) -> frozenset[Path]:
    """Files of `module`, of the modules that it reaches, and data files that these name."""
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            queue += [n for n in _imports(name) if _tracked(n)]
    return frozenset(file for name in seen for file in _files_of(name))


def _tracked(module: str) -> bool:
    return module.startswith(PACKAGES) and module not in UNTRACKED


def _files_of(module: str) -> set[Path]:
    path = _module_file(module)
    assert path is not None, module
    strings = (n.value for n in ast.walk(_tree(path)) if isinstance(n, ast.Constant))
    named = {
        path.parent / s for s in strings if isinstance(s, str) and s.endswith((".py", ".yaml"))
    }
    return {path, *(file for file in named if file.is_file())}


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of this project that `module` imports anywhere in its text."""
    path = _module_file(module)
    if path is None:
        return frozenset()
    return frozenset(n for n in _imported_names(_tree(path), module) if _module_file(n))


def _imported_names(tree: ast.AST, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
