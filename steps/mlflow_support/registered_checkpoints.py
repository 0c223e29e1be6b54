"""Checkpoints as sources of a run, among them the model versions of an MLflow registry."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.files import file_manifest, flush
from adapruner.hashing import hash_json
from adapruner.models.storage import sources
from adapruner.models.storage.sources import CheckpointSource
from adapruner.remote_files import PARTIAL, fetch, is_url
from adapruner.temporary import remove_abandoned, temporary_folder
from steps.mlflow_support import tracking
from steps.zenml_support.workspace import downloaded, fetched

REGISTRY = "models:"
MODEL_VERSION = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


def resolve(model: ModelConfig) -> CheckpointSource:
    """The checkpoint that `model.source` refers to now.

    The files of a model version, or at a URL, are downloaded; of a model version `revision` is then
    NAME/VERSION. Raises
    UserError for a source that does not exist.
    """
    if is_url(model.source):
        return sources.resolve(model, fetch(model.source, fetched()))
    if not model.source.startswith(REGISTRY):
        return sources.resolve(model)
    directory, revision = _download(model.source)
    return sources.resolve(model, directory).model_copy(update={"revision": revision})


def materialize(source: CheckpointSource, out: Path) -> None:
    """Writes the checkpoint of `source` to `out`.

    Steps may run on different machines, so files that are not on this one are downloaded.
    """
    if is_url(source.uri) and not Path(source.location).is_dir():
        model = ModelConfig(source=source.uri, family=source.family)
        here = resolve(model)
        if here.content_hash != source.content_hash:
            raise UserError(f"{source.uri} has changed since the run began; run again")
        source = here
    if source.uri.startswith(REGISTRY) and not Path(source.location).is_dir():
        directory, _ = _download(f"{REGISTRY}/{source.revision}")
        source = source.model_copy(update={"location": str(directory)})
    sources.materialize(source, out)


def content_hash(version: ModelVersion) -> str:
    """The content hash of a model version's checkpoint, as in `resolve`, after a new download.

    Raises UserError for files that are not a usable checkpoint.
    """
    for directory in _download_folder(version).glob(f"{version.version}-*"):
        shutil.rmtree(directory)
    uri = f"{REGISTRY}/{version.name}/{version.version}"
    return resolve(ModelConfig(source=uri)).content_hash


def fingerprint(version: ModelVersion) -> str:
    """sha256 over the names and sizes of a model version's files, as 64 hex digits.

    Local files count with their modification times as well. No file is read, so a change of a
    remote file that keeps its size is not noticed. Raises UserError where the files can't be
    listed.
    """
    uri = MlflowClient().get_model_version_download_uri(version.name, version.version)
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("", "file"):
            files: dict[str, Any] = file_manifest(Path(unquote(parts.path)))
        else:
            files = dict(_remote_files(uri))
    except (MlflowException, OSError) as error:
        raise _files_error(version, uri, "listed", error) from error
    return hash_json([uri, files])


def _download(uri: str) -> tuple[Path, str]:
    """The directory of a model version's checkpoint, and the version's NAME/VERSION.

    Files with the same fingerprint are downloaded once. Raises UserError where there is no such
    version, or its files hold no checkpoint.
    """
    match = MODEL_VERSION.fullmatch(uri)
    if not match:
        raise UserError(
            f"model.source {uri!r} names no version; write models:/NAME/VERSION or "
            "models:/NAME@ALIAS"
        )
    version = _find_version(match["name"], match["version"], match["alias"])
    before = fingerprint(version)
    folder = _download_folder(version)
    target = folder / f"{version.version}-{version.creation_timestamp}-{before[:12]}"
    if target.is_dir():
        os.utime(target)  # when it was last used
    else:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.glob(f"{PARTIAL}*"))
        with temporary_folder(folder, PARTIAL) as temporary:
            files = temporary / "files"
            files.mkdir()
            checkpoint = _checkpoint_in(_download_files(version, files), uri)
            if fingerprint(version) != before:
                raise UserError(f"{uri}: its files changed during the download; run again")
            flush(checkpoint)
            checkpoint.rename(target)
    return target, f"{version.name}/{version.version}"


def _download_folder(version: ModelVersion) -> Path:
    """The folder of all downloaded versions of a registered model."""
    return downloaded() / re.sub(r"[^A-Za-z0-9_-]", "_", version.name)


def _find_version(name: str, version: str | None, alias: str | None) -> ModelVersion:
    """A model version by number or alias. Raises UserError where there is none."""
    client = tracking.connect()
    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        wanted = f"{name}@{alias}" if alias else f"{name}/{version}"
        raise UserError(
            f"models:/{wanted} is not in the MLflow registry at "
            f"{tracking.redacted(mlflow.get_registry_uri())}: {tracking.summarize_error(error)}"
        ) from error


def _download_files(version: ModelVersion, folder: Path) -> Path:
    uri = MlflowClient().get_model_version_download_uri(version.name, version.version)
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise _files_error(version, uri, "downloaded", error) from error


def _files_error(version: ModelVersion, uri: str, action: str, error: Exception) -> UserError:
    return UserError(
        f"models:/{version.name}/{version.version}: its files at {tracking.redacted(uri)} can't be "
        f"{action}: {tracking.summarize_error(error)}"
    )


def _checkpoint_in(directory: Path, uri: str) -> Path:
    """The folder below `directory` with config.json; its depth depends on the MLflow flavour."""
    configs = sorted(directory.rglob("config.json"), key=lambda path: len(path.parts))
    if not configs:
        raise UserError(f"model.source {uri}: its files hold no config.json, so no checkpoint")
    return configs[0].parent


def _remote_files(uri: str) -> Iterator[tuple[str, int | None]]:
    """Relative name and size in bytes of all files at an artifact URI."""
    repository = get_artifact_repository(uri)
    folders: list[str | None] = [None]
    while folders:
        for info in repository.list_artifacts(folders.pop()):
            if info.is_dir:
                folders.append(info.path)
            else:
                yield info.path, info.file_size
