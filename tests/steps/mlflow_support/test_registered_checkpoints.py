from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from adapruner.config import ModelConfig
from adapruner.errors import UserError
from steps.mlflow_support import registered_checkpoints, tracking
from tests.pipelines import small


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with one version of a small checkpoint, under an alias."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("ADAPRUNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    small.write_checkpoint(tmp_path / "model", seed=0)
    client = tracking.connect()
    experiment = client.create_experiment("e", (tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info
    client.log_artifacts(run.run_id, str(tmp_path / "model"), "checkpoint")
    client.create_registered_model("team.model")
    client.create_model_version("team.model", f"{run.artifact_uri}/checkpoint", run.run_id)
    client.set_registered_model_alias("team.model", "champion", "1")
    return client


@pytest.mark.slow
def test_a_version_and_its_alias_resolve_to_the_content_of_the_directory(
    registry: MlflowClient, tmp_path: Path
) -> None:
    directory = registered_checkpoints.resolve(ModelConfig(source=str(tmp_path / "model")))
    for uri in ("models:/team.model@champion", "models:/team.model/1"):
        source = registered_checkpoints.resolve(ModelConfig(source=uri))
        assert (source.uri, source.revision) == (uri, "team.model/1")
        assert source.content_hash == directory.content_hash
        assert Path(source.location).is_relative_to(tmp_path / "home" / "models")
    version = registry.get_model_version("team.model", "1")
    assert registered_checkpoints.content_hash(version) == directory.content_hash


@pytest.mark.slow
def test_a_version_is_downloaded_again_where_its_files_are_not_on_this_machine(
    registry: MlflowClient, tmp_path: Path
) -> None:
    source = registered_checkpoints.resolve(ModelConfig(source="models:/team.model/1"))
    elsewhere = source.model_copy(update={"location": str(tmp_path / "on-another-machine")})
    out = tmp_path / "out"
    out.mkdir()
    registered_checkpoints.materialize(elsewhere, out)
    assert (out / "config.json").is_file()


@pytest.mark.slow
def test_a_missing_alias_and_missing_files_are_reported(
    registry: MlflowClient, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"models:/team\.model@none"):
        registered_checkpoints.resolve(ModelConfig(source="models:/team.model@none"))
    for config in (tmp_path / "artifacts").rglob("config.json"):
        config.unlink()
    with pytest.raises(UserError, match=r"models:/team\.model/1.*config\.json"):
        registered_checkpoints.resolve(ModelConfig(source="models:/team.model/1"))


@pytest.mark.slow
def test_the_fingerprint_changes_with_the_size_and_the_time_of_a_file(
    registry: MlflowClient, tmp_path: Path
) -> None:
    version = registry.get_model_version("team.model", "1")
    before = registered_checkpoints.fingerprint(version)
    assert registered_checkpoints.fingerprint(version) == before
    (config,) = (tmp_path / "artifacts").rglob("tokenizer_config.json")
    config.write_text(config.read_text() + "\n")
    assert registered_checkpoints.fingerprint(version) != before


@pytest.mark.parametrize("uri", ["models:/a", "models:/a/latest", "models:a/1", "models:/a/b/1"])
def test_a_uri_that_names_no_version_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="names no version"):
        registered_checkpoints.resolve(ModelConfig(source=uri))
