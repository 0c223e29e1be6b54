from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from steps.mlflow_support import registered_checkpoints as sources
from tests.pipelines import small


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A real registry with one version of a small checkpoint, under an alias."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("ADAPRUNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    small.write_checkpoint(tmp_path / "model", seed=0)
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info
    client.log_artifacts(run.run_id, str(tmp_path / "model"), "checkpoint")
    client.create_registered_model("team.model")
    client.create_model_version("team.model", f"{run.artifact_uri}/checkpoint", run.run_id)
    client.set_registered_model_alias("team.model", "champion", "1")
    return client


@pytest.mark.slow
def test_a_version_and_its_alias_are_the_same_content_as_the_directory(
    registry: MlflowClient, tmp_path: Path
) -> None:
    directory = sources.resolve(ModelConfig(source=str(tmp_path / "model")))
    for uri in ("models:/team.model@champion", "models:/team.model/1"):
        source = sources.resolve(ModelConfig(source=uri))
        assert source.given == uri
        assert source.revision == "team.model/1"
        assert source.content_hash == directory.content_hash
        assert Path(source.location).is_relative_to(tmp_path / "home" / "models")

    away = source.model_copy(update={"location": str(tmp_path / "on-another-machine")})
    out = tmp_path / "out"
    out.mkdir()
    sources.materialize(away, out)
    assert (out / "config.json").is_file()

    with pytest.raises(UserError, match=r"models:/team\.model@none is not in the MLflow registry"):
        sources.resolve(ModelConfig(source="models:/team.model@none"))


@pytest.mark.parametrize("uri", ["models:/a", "models:/a/latest", "models:a/1", "models:/a/b/1"])
def test_what_names_no_version_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="names no version"):
        sources.resolve(ModelConfig(source=uri))
