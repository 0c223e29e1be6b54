from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.pipelines.cli.commands.results import run


@pytest.mark.slow
def test_a_version_is_promoted_and_a_rollback_needs_a_previous_champion(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_registered_model("base")
    client.create_model_version("base", "s3://b/c")
    result = run("promote", "base", "1", "--home", tmp_path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["target"] == "base/1"
    assert str(client.get_model_version_by_alias("base", "champion").version) == "1"
    result = run("rollback", "base", "--home", tmp_path)
    assert result.exit_code == 2
    assert "no alias 'previous'" in result.output
