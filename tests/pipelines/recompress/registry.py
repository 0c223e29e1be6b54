"""A real MLflow registry with versions of small models, and a recompress file for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tests.pipelines import small

METRIC = "text_ppl_seq16"


def write_wide(path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=416,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(path)


class Registry:
    """SQLite in `folder`/home, as the commands create it, with training runs beside it; or the
    server at `uri`, which has the artifacts as well."""

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        self.uri = uri or f"sqlite:///{self.home / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        place = None if uri else (folder / "t").as_uri()
        self._experiment = self.client.create_experiment("training", place)
        small.write_text(folder / "text.txt", seed=0)

    def push(self, name: str, seed: int, wide: bool = False) -> ModelVersion:
        """Registers a new checkpoint as a training job does; a `wide` one has 9 MB."""
        small.write_checkpoint(self.folder / "trained", seed)
        if wide:
            write_wide(self.folder / "trained")
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        run = self.client.create_run(self._experiment).info
        self.client.log_artifacts(run.run_id, str(self.folder / "trained"), "checkpoint")
        return self.client.create_model_version(name, f"{run.artifact_uri}/checkpoint", run.run_id)

    def files(self, version: ModelVersion) -> Path:
        """The folder of the files of a pushed version."""
        return Path(version.source.removeprefix("file://"))

    def overwrite(self, version: ModelVersion, seed: int) -> None:
        """Replaces the checkpoint of a version."""
        shutil.rmtree(self.files(version))
        small.write_checkpoint(self.files(version), seed)

    def plan(self, name: str, **settings: Any) -> Path:
        """A recompress file from the model `name` to `NAME-small`, with quick settings."""
        values = small.config(self.folder)
        sections = values["parameters"]["config"]
        sections["search"] = {"trials": 4, "set_size": 2}
        sections["calibration"] |= {"pool_size": 4, "objective_tokens": 32, "update_size": 8}
        sections["evaluation"] |= {"max_windows": 2, "speed": False}
        sections["finetune"] = {"method": "none"}
        sections["output_dir"] = str(self.folder / "runs")
        content = {
            **values,
            "models": [{"source": name, "target": f"{name}-small"}],
            "promotion": {"metric": METRIC},
            "retry": {"attempts": 3, "backoff": "1h"},
            **settings,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def has_locks(self) -> bool:
        return bool(self.client.search_registered_models("name LIKE 'adapruner-lock-%'"))

    def versions(self, name: str) -> list[ModelVersion]:
        versions = self.client.search_model_versions(f"name = '{name}'")
        return sorted(versions, key=lambda version: int(version.version))
