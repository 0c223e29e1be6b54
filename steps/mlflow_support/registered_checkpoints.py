"""Checkpoints that a config names, among them versions of an MLflow registry."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from adapruner.models import sources
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from steps.mlflow_support import tracking
from steps.zenml_support.workspace import home

REGISTRY = "models:"
MODEL_VERSION = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))")


def resolve(model: ModelConfig) -> sources.Source:
    """What `model.source` stands for now; a registry's version is fetched and its number kept."""
    if not model.source.startswith(REGISTRY):
        return sources.resolve(model)
    directory, version = _fetch(model.source)
    return sources.resolve(model, directory).model_copy(update={"revision": version})


def content_of(version: ModelVersion) -> str:
    """The content hash of a registered version's checkpoint, fetched anew.

    It is what `resolve` says of it. Raises UserError for what is not a usable checkpoint.
    """
    for fetched in _fetched(version).glob(f"{version.version}-*"):
        shutil.rmtree(fetched)
    uri = f"{REGISTRY}/{version.name}/{version.version}"
    return resolve(ModelConfig(source=uri)).content_hash


def materialize(source: sources.Source, out: Path) -> None:
    """Write the checkpoint that `source` names into `out`, fetching it again where it is absent.

    Steps may run on different machines: what one of them fetched is not on the other's disk.
    """
    if source.given.startswith(REGISTRY) and not Path(source.location).is_dir():
        directory, _ = _fetch(f"{REGISTRY}/{source.revision}")
        source = source.model_copy(update={"location": str(directory)})
    sources.materialize(source, out)


def _fetch(uri: str) -> tuple[Path, str]:
    """Directory of a registered version's checkpoint, and its NAME/VERSION."""
    match = MODEL_VERSION.fullmatch(uri)
    if not match:
        raise UserError(
            f"model.source {uri!r} names no version; write models:/NAME/VERSION or "
            "models:/NAME@ALIAS"
        )
    version = tracking.model_version(match["name"], match["version"], match["alias"])
    state = tracking.fingerprint(version)
    name = f"{version.version}-{version.creation_timestamp}-{state[:12]}"
    target = _fetched(version) / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".fetch-", dir=target.parent))
        try:
            fetched = _checkpoint_in(tracking.download(version, beside), uri)
            if tracking.fingerprint(version) != state:
                raise UserError(f"{uri}: its files changed while they were fetched; run again")
            fetched.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return target, f"{version.name}/{version.version}"


def _fetched(version: ModelVersion) -> Path:
    """Where versions of the same registered model are fetched to."""
    return home() / "models" / re.sub(r"[^A-Za-z0-9_-]", "_", version.name)


def _checkpoint_in(directory: Path, uri: str) -> Path:
    """The folder below `directory` that holds config.json: flavours put it at different depths."""
    found = sorted(directory.rglob("config.json"), key=lambda p: len(p.parts))
    if not found:
        raise UserError(f"model.source {uri}: its files hold no config.json, so no checkpoint")
    return found[0].parent
