"""What a run on a cluster is refused for, before anything is submitted."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from adapruner.config import RunConfig
from adapruner.errors import UserError
from pipelines.remote.checks import CLIENTS, check, check_clients, local_paths
from pipelines.remote.run import FROM_IMAGE, submitted_values

ROOT = Path(__file__).parents[3]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "configs/cluster.yaml").read_text())


def stack(**changes: Any) -> Any:
    """The parts of a ZenML stack that are read: a real one needs the clients of a cluster."""
    parts = {
        "store": "s3://zenml/artifacts",
        "tracking": "https://mlflow.example.org",
        "flavor": "kubernetes",
    } | changes
    store = SimpleNamespace(is_local="://" not in parts["store"])
    return SimpleNamespace(
        name="cluster",
        orchestrator=SimpleNamespace(
            flavor=parts["flavor"], config=SimpleNamespace(pod_settings=None)
        ),
        artifact_store=SimpleNamespace(name="store", path=parts["store"], config=store),
        experiment_tracker=parts["tracking"]
        and SimpleNamespace(
            flavor="mlflow", config=SimpleNamespace(tracking_uri=parts["tracking"])
        ),
    )


def refused(changes: dict[str, Any], chosen: Any) -> str:
    """The refusal of the example, in which settings (`section.key`) are changed."""
    values = copy.deepcopy(FILE)
    for path, value in changes.items():
        section = values["parameters"]["config"]
        *parents, last = path.split(".")
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = value
    with pytest.raises(UserError) as error:
        config = RunConfig.model_validate(values["parameters"]["config"])
        check(values, config, chosen, config.search.is_searched)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_example_is_accepted() -> None:
    check(FILE, RunConfig.model_validate(FILE["parameters"]["config"]), stack(), True)


@pytest.mark.parametrize(
    "tracking", ["sqlite:////home/me/mlflow.db", "/home/me/mlruns", "file:///x", None]
)
def test_an_mlflow_that_pods_can_t_reach_is_refused(tracking: str | None) -> None:
    assert "MLflow" in refused({}, stack(tracking=tracking))


def test_a_local_artifact_store_is_refused() -> None:
    assert "/home/me/store" in refused({}, stack(store="/home/me/store"))


@pytest.mark.parametrize("storage", [None, "sqlite:////data/studies.db"])
def test_a_search_without_a_database_is_refused(storage: str | None) -> None:
    assert "search.storage" in refused({"search.storage": storage}, stack())


@pytest.mark.parametrize(
    "setting, path",
    [
        ("model.source", "/home/me/model"),
        ("calibration.source", ["s3://texts/a.jsonl", "texts/b.jsonl"]),
        ("finetune.source", "/database/rows.json"),
        ("evaluation.texts", {"own": "own.txt"}),
        ("evaluation.tasks_dir", "tasks"),
    ],
)
def test_a_path_on_no_volume_is_refused(setting: str, path: Any) -> None:
    assert setting in refused({setting: path}, stack())


def test_kubeflow_mounts_nothing() -> None:
    assert "no volume" in refused({}, stack(flavor="kubeflow"))


def test_an_image_that_zenml_would_build_is_refused() -> None:
    values = {**FILE, "settings": {"docker": {"requirements": "constraints.txt"}}}
    config = RunConfig.model_validate(FILE["parameters"]["config"])
    with pytest.raises(UserError, match="skip_build"):
        check(values, config, stack(), True)


def test_every_setting_that_names_a_file_is_checked() -> None:
    config = RunConfig.model_validate(
        {
            "name": "x",
            "model": {"source": "m"},
            "calibration": {"source": ["hub:a/b", "self:chat", "c"], "objective_source": "o"},
            "finetune": {"source": "f"},
            "evaluation": {"texts": {"t": "t"}, "data_dir": "d"},
            "registry": {"name": "r"},
        }
    )
    assert {path for _, path in local_paths(config)} == set("mcoftd")


def test_a_missing_client_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CLIENTS, "kubernetes", ("no_such_module", "kubernetes"))
    part = SimpleNamespace(flavor_name="kubernetes")
    model: Any = SimpleNamespace(name="cluster", components={"orchestrator": [part]})
    with pytest.raises(UserError, match=r"no_such_module.*adapruner\[kubernetes\]"):
        check_clients(model)


def test_a_submitted_run_uses_the_code_of_the_image_and_is_not_waited_for_by_zenml() -> None:
    settings = submitted_values(FILE, "kubernetes")["settings"]
    assert settings["docker"].items() >= FROM_IMAGE.items()
    assert settings["orchestrator.kubernetes"]["synchronous"] is False
    assert settings["orchestrator.kubernetes"]["pod_settings"]
    assert "synchronous" not in FILE["settings"]["orchestrator.kubernetes"]
