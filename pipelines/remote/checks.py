"""What a run on a cluster can't have, refused before anything is submitted.

A step runs in a pod, which has its image, the artifact store and what is mounted. A file of the
machine that submits the run is not there, and a file that a step writes is lost with its pod.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.mlflow_support.tracking import redacted
from steps.zenml_support.workspace import has_scheme, is_shared_database

if TYPE_CHECKING:
    from zenml.models import StackResponse
    from zenml.stack import Stack

CLIENTS = {
    "kubernetes": ("kubernetes", "kubernetes"),
    "kubeflow": ("kfp", "kubeflow"),
    "s3": ("s3fs", "s3"),
}
"""Flavor of a stack's component -> the module that it needs here, and the extra that has it."""

MOUNTING = "kubernetes"
"""The only flavor of orchestrator that mounts the volumes of `pod_settings`."""


def check_clients(stack: StackResponse) -> None:
    """Raises UserError where a package is missing that a component of the stack needs here."""
    flavors = [c.flavor_name for components in stack.components.values() for c in components]
    missing = [f for f in flavors if f in CLIENTS and not _is_installed(CLIENTS[f][0])]
    if missing:
        modules = ", ".join(CLIENTS[flavor][0] for flavor in missing)
        extras = ",".join(sorted({CLIENTS[flavor][1] for flavor in missing}))
        raise UserError(
            f"the ZenML stack '{stack.name}' needs packages that are not installed here "
            f"({modules}); run: pip install 'adapruner[{extras}]'"
        )


def check(values: Mapping[str, Any], config: RunConfig, stack: Stack, has_search: bool) -> None:
    """Raises UserError for settings that steps on another machine can't have.

    `values` is the content of the file that `config` is in.
    """
    _check_store(stack)
    _check_tracking(values, stack)
    if has_search:
        _check_study(config)
    _check_image(values)
    _check_paths(config, mounted_folders(values, stack))


def mounted_folders(values: Mapping[str, Any], stack: Stack) -> list[PurePosixPath]:
    """The folders of pods at which volumes are mounted, by the run's file or by the stack."""
    if stack.orchestrator.flavor != MOUNTING:
        return []
    of_stack: Any = stack.orchestrator.config
    settings = values.get("settings") or {}
    named = [settings.get(key) or {} for key in ("orchestrator", f"orchestrator.{MOUNTING}")]
    pods = [section.get("pod_settings") or {} for section in named]
    if of_stack.pod_settings is not None:
        pods.append(of_stack.pod_settings.model_dump())
    mounts = [mount for pod in pods for mount in pod.get("volume_mounts") or []]
    return [PurePosixPath(m["mountPath"]) for m in mounts if "mountPath" in m]


def local_paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Setting and value of everything that the run reads from a file system."""
    evaluation, calibration = config.evaluation, config.calibration
    sources: dict[str, Any] = {
        "model.source": config.model.source,
        "calibration.source": calibration.source,
        "calibration.objective_source": calibration.objective_source,
        "finetune.source": config.finetune.source,
        "evaluation.tasks_dir": evaluation.tasks_dir,
        "evaluation.data_dir": evaluation.data_dir,
        "search.rows_dir": config.search.rows_dir,
        **{f"evaluation.texts.{name}": uri for name, uri in evaluation.texts.items()},
    }
    for setting, value in sources.items():
        for uri in (value,) if isinstance(value, str) else value or ():
            if not has_scheme(uri):
                yield setting, uri


def _check_store(stack: Stack) -> None:
    store = stack.artifact_store
    if store.config.is_local or "://" not in store.path:
        raise UserError(
            f"the artifact store '{store.name}' of the ZenML stack '{stack.name}' is the local "
            f"folder {store.path}, which steps on a cluster don't have; give the stack a remote "
            "one, such as s3://BUCKET/PATH"
        )


def _check_tracking(values: Mapping[str, Any], stack: Stack) -> None:
    tracker = stack.experiment_tracker
    uri = (values.get("environment") or {}).get("MLFLOW_TRACKING_URI")
    if uri is None and tracker is not None and tracker.flavor == "mlflow":
        of_tracker: Any = tracker.config
        uri = of_tracker.tracking_uri
    if uri is None:
        raise UserError(
            f"the ZenML stack '{stack.name}' has no MLflow tracker with a tracking_uri; register "
            "one, or set MLFLOW_TRACKING_URI below `environment` in the run's file"
        )
    if not is_shared_database(uri) and not uri.startswith(("http://", "https://", "databricks")):
        raise UserError(
            f"the MLflow tracking URI {redacted(uri)} is a file of one machine, which steps on a "
            "cluster don't have; use a server, http(s)://HOST"
        )


def _check_study(config: RunConfig) -> None:
    storage = config.search.storage
    if not is_shared_database(storage or "sqlite:"):
        raise UserError(
            f"search.storage is {redacted(storage) if storage else 'not set'}: trials would be in "
            "an SQLite file of one pod and lost with it; set a database, such as "
            "postgresql+psycopg://USER@HOST/studies"
        )


def _check_image(values: Mapping[str, Any]) -> None:
    docker = (values.get("settings") or {}).get("docker") or {}
    if not docker.get("parent_image") or docker.get("skip_build") is not True:
        raise UserError(
            "settings.docker needs parent_image, an image of AdaPruner, and skip_build: true; "
            "see docs/cluster.md"
        )


def _check_paths(config: RunConfig, mounts: list[PurePosixPath]) -> None:
    for setting, path in local_paths(config):
        if not any(PurePosixPath(path).is_relative_to(mount) for mount in mounts):
            folders = ", ".join(map(str, mounts)) or "no volume"
            raise UserError(
                f"{setting}: {path} is a file of this machine, and steps run on a cluster; use "
                "s3://, hub:, models:/ or package:, or a path on a volume that the pods mount "
                f"({folders})"
            )


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
