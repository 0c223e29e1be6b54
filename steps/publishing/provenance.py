"""What a result was made from: hashes, versions and settings."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapruner.config import RunConfig
from adapruner.hashing import hash_directory, hash_file, hash_json
from steps.mlflow_support.tracking import redacted

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


# Not the `location` of a source: where files lay on this machine is nobody's business.
SOURCE_FIELDS = ("given", "kind", "revision", "content_hash")


def published(config: RunConfig) -> RunConfig:
    """The configuration as others may read it: without the password of the study's storage."""
    if config.search.storage is None:
        return config
    search = config.search.model_copy(update={"storage": redacted(config.search.storage)})
    return config.model_copy(update={"search": search})


def provenance(config: RunConfig, stages: dict[str, Path]) -> dict[str, Any]:
    """The `provenance` of report.json; `config` is one that may be published.

    Hashes are sha256 over a stage's files, as 64 hex digits.
    """
    source = _read(stages["resolve_source"] / "source.json")
    texts = _read(stages["texts"] / "texts.json")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config_hash": config_hash(config),
        "settings_hash": settings_hash(config),
        "source": _shown(source),
        "texts": {given: _shown(text) for given, text in texts.items()},
        "hashes": {
            "source": source["content_hash"],
            "texts": {given: text["content_hash"] for given, text in texts.items()},
            "pool": hash_directory(stages["filter_calibration_pool"]),
            "table": hash_directory(stages["estimate_importance"]),
            "plan": hash_file(stages["search"] / "plan.json"),
            "pruned_checkpoint": hash_directory(stages["prune"]),
            "checkpoint": hash_directory(stages["finetune"] / "checkpoint"),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def config_hash(config: RunConfig) -> str:
    """sha256 of all settings, the defaults among them."""
    return hash_json(config.model_dump(mode="json"))


def settings_hash(config: RunConfig) -> str:
    """sha256 of what a compression does and which registered model it is for, from any source.

    Where something is computed or put doesn't count, and neither does a default: a new setting in
    a later release must not make all that was compressed look out of date.
    """
    placed = {"model": {"source", "revision", "device"}, "search": {"storage"}}
    placed |= {"registry": {"alias"}}
    values = config.model_dump(mode="json", exclude_defaults=True)
    for section, fields in placed.items():
        values[section] = {k: v for k, v in values.get(section, {}).items() if k not in fields}
    return hash_json({k: v for k, v in values.items() if k not in ("name", "output_dir")})


def _shown(source: dict[str, Any]) -> dict[str, Any]:
    return {field: source[field] for field in SOURCE_FIELDS}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
