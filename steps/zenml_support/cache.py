"""Which step results are reused: the cache key of each step, and expiry of damaged results.

The cache key of a step consists of its parameters and the content hashes of its inputs, which ZenML
computes, and of the source files that compute its result, which are listed here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
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

from adapruner.dependencies import source_files
from steps.zenml_support.materializer import DirectoryMaterializer, is_complete, is_intact

PACKAGES = ("adapruner", "steps")
"""Packages whose modules are part of a cache key where a step reaches them."""

PAGE_SIZE = 1000

logger = logging.getLogger(__name__)


def cached_step(function: Callable[..., Any]) -> BaseStep:
    """A step that returns directories and runs only when its inputs or its code have changed."""
    policy = CachePolicy(file_dependencies=file_dependencies(function.__module__))
    return step(output_materializers=DirectoryMaterializer, cache_policy=policy)(function)


def uncached_step(function: Callable[..., Any]) -> BaseStep:
    """A step that returns directories and runs every time: it reads or writes external state."""
    return step(output_materializers=DirectoryMaterializer, enable_cache=False)(function)


def file_dependencies(module: str) -> list[str]:
    """The source files that the result of the step in `module` depends on, its own among them.

    Paths are relative to ZenML's source root, so that the key is the same on every machine. Files
    outside that root have absolute paths.
    """
    root = Path(source_utils.get_source_root()).resolve()
    files = source_files(module, PACKAGES)
    return [str(f.relative_to(root) if f.is_relative_to(root) else f) for f in files]


def expire_damaged_results() -> list[str]:
    """Expires cached step runs whose artifacts are missing, altered or incomplete; their URIs.

    To be called before a run is planned: ZenML does not check that a cached artifact still exists,
    and the steps that read it would fail. An incomplete artifact may succeed the next time.
    """
    client = Client()
    versions = depaginate(
        client.list_artifact_versions,
        artifact_store_id=client.active_stack.artifact_store.id,
        materializer=f"contains:{DirectoryMaterializer.__name__}",
        size=PAGE_SIZE,
    )
    damaged = [v for v in versions if v.uri and not _is_usable(v.uri, v.content_hash)]
    candidates = _cache_candidates() if damaged else frozenset()
    expired = []
    for version in damaged:
        # Inside a pipeline function the client returns lazy references, the store real objects.
        producer = client.zen_store.get_artifact_version(version.id).producer_step_run_id
        if producer in candidates:
            update = StepRunUpdate(cache_expires_at=utc_now() - timedelta(seconds=1))
            client.zen_store.update_run_step(producer, update)
            logger.warning(
                "The files of %s are missing, altered or incomplete: its step runs again.",
                version.uri,
            )
            expired.append(version.uri)
    return expired


def _is_usable(uri: str, content_hash: str | None) -> bool:
    return is_intact(uri, content_hash) and is_complete(uri)


def _cache_candidates() -> frozenset[UUID]:
    """The step runs whose results ZenML may reuse."""
    runs = depaginate(
        Client().list_run_steps,
        status=ExecutionStatus.COMPLETED,
        cache_expired=False,
        size=PAGE_SIZE,
    )
    return frozenset(run.id for run in runs)
