"""The provenance of a result: hashes, versions and settings."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from adapruner.config import RunConfig
from adapruner.hashing import hash_file, hash_json
from steps.mlflow_support.tracking import redacted
from steps.zenml_support.materializer import content_hash

if TYPE_CHECKING:
    from adapruner.data.texts.sources import TextSources
    from adapruner.models.storage.sources import CheckpointSource

PACKAGES = (
    "adapruner",
    "torch",
    "transformers",
    "zenml",
    "mlflow",
    "optuna",
    "peft",
    "datasets",
    "lm-eval",
)
"""Packages whose versions are recorded."""

NOT_IN_SETTINGS_HASH = {
    "model": {"source", "revision", "device"},
    "search": {"storage"},
    "registry": {"alias"},
}
"""Section -> settings that do not change what a compression does."""


def publishable(config: RunConfig) -> RunConfig:
    """The configuration without the password of the study's storage."""
    if config.search.storage is None:
        return config
    search = config.search.model_copy(update={"storage": redacted(config.search.storage)})
    return config.model_copy(update={"search": search})


def provenance(
    config: RunConfig, source: CheckpointSource, texts: TextSources, stages: dict[str, Path]
) -> dict[str, Any]:
    """The `provenance` of report.json; `config` is a publishable one.

    Hashes are sha256 over a stage's files, as 64 hex digits.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config_hash": config_hash(config),
        "settings_hash": settings_hash(config),
        "source": _without_location(source),
        "texts": {uri: _without_location(text) for uri, text in texts.sources.items()},
        "hashes": {
            "source": source.content_hash,
            "texts": {uri: text.content_hash for uri, text in texts.sources.items()},
            "pool": content_hash(stages["filter_calibration_pool"]),
            "table": content_hash(stages["estimate_importance"]),
            "plan": hash_file(stages["search"] / "plan.json"),
            "pruned_checkpoint": content_hash(stages["prune"]),
            "checkpoint": content_hash(stages["finetune"], "checkpoint"),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def config_hash(config: RunConfig) -> str:
    """sha256 of all settings, the defaults among them, as 64 hex digits."""
    return hash_json(config.model_dump(mode="json"))


def settings_hash(config: RunConfig) -> str:
    """sha256 of the settings that decide what a compression does, as 64 hex digits.

    It is the same for every version of the compressed model, every device and every output folder.
    Defaults do not count, so that a new setting in a later release leaves the hash as it is.
    """
    values = config.model_dump(mode="json", exclude_defaults=True)
    for section, names in NOT_IN_SETTINGS_HASH.items():
        values[section] = {k: v for k, v in values.get(section, {}).items() if k not in names}
    return hash_json({k: v for k, v in values.items() if k not in ("name", "output_dir")})


def _without_location(source: BaseModel) -> dict[str, Any]:
    """A source without its path on this machine, which is not published."""
    return source.model_dump(mode="json", exclude={"location"})
