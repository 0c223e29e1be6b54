from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from adapruner.config import RegistryConfig
from adapruner.errors import UserError
from steps.mlflow_support import model_versions, runs
from tests.steps.mlflow_support.reports import REPORT, write_stage

REGISTRY = RegistryConfig(name="once", alias="candidate")


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    for name in ("config.json", "timing.json"):
        (path / name).write_text("{}")
    return path


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return write_stage(tmp_path / "report")


def test_the_tags_name_the_source_the_ratio_the_metrics_and_the_gate() -> None:
    tags = model_versions.version_tags(REPORT)
    assert tags["source"] == "models:/a@x"
    assert (tags["source_name"], tags["source_version"]) == ("a", "1")
    assert (tags["ratio.requested"], tags["ratio.achieved"]) == ("0.2", "0.21")
    assert (tags["dense.t_ppl"], tags["pruned.t_ppl"]) == ("10.0", "12.0")
    assert tags["mean_retention"] == "0.9"
    assert tags["gate"] == "none"


def test_a_source_outside_the_registry_has_no_source_version() -> None:
    source = {"uri": "model/", "revision": None}
    provenance = {**REPORT["provenance"], "source": source}
    tags = model_versions.version_tags({**REPORT, "provenance": provenance})
    assert not {"source_name", "source_version"} & set(tags)


def test_the_same_checkpoint_is_registered_once_while_its_files_exist(
    client: MlflowClient, report: Path, checkpoint: Path
) -> None:
    tags = model_versions.version_tags(REPORT)

    def registered(tags: dict[str, str]) -> str:
        run = runs.log_run(client, "run", {}, report, {})
        version = model_versions.register(client, REGISTRY, run, checkpoint, tags)
        assert client.get_model_version_by_alias("once", "candidate").version == version.version
        return str(version.version)

    assert registered(tags) == "1"
    assert registered(tags) == "1"
    assert registered({**tags, "checkpoint_hash": "k1"}) == "2"
    assert registered(tags) == "1"

    first = client.get_model_version("once", "1")
    files = [file.path for file in client.list_artifacts(first.run_id, "checkpoint")]
    assert files == ["checkpoint/config.json"]
    Path(urlsplit(first.source).path, "config.json").unlink()
    assert registered(tags) == "3"


def test_an_existing_version_gets_the_gate_of_the_latest_run_and_the_alias_only_if_set(
    client: MlflowClient, report: Path, checkpoint: Path
) -> None:
    tags = model_versions.version_tags(REPORT)
    run = runs.log_run(client, "run", {}, report, {})
    without_alias = REGISTRY.model_copy(update={"alias": None})
    model_versions.register(client, without_alias, run, checkpoint, tags)
    assert client.get_registered_model("once").aliases == {}
    failed = {**tags, "gate": "failed", "gate_reasons": "too slow"}
    model_versions.register(client, without_alias, run, checkpoint, failed)
    version = client.get_model_version("once", "1")
    assert (version.tags["gate"], version.tags["gate_reasons"]) == ("failed", "too slow")


@pytest.mark.parametrize("method", ["lora", "none"])
def test_only_the_final_model_needs_a_finite_perplexity(method: str) -> None:
    finite, not_finite = {"text_ppl_seq128": 12.5}, {"text_ppl_seq128": None}
    models = ("finetuned", "pruned") if method == "lora" else ("pruned", "finetuned")
    for first, second, is_usable in ((finite, not_finite, True), (not_finite, finite, False)):
        metrics = dict(zip(models, (first, second), strict=True))
        loss = "distill" if method == "lora" else None
        report = {"metrics": metrics, "recovery": {"method": method, "loss": loss}}
        if is_usable:
            model_versions.check_usable(report)
        else:
            with pytest.raises(UserError, match=rf"{models[0]}.*text_ppl_seq128"):
                model_versions.check_usable(report)
