from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from adapruner.errors import UserError
from pipelines.recompress import promotion
from pipelines.recompress.config import Promotion

PPL = Promotion(metric="text_ppl", min_improvement=0.05)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}")


def version(client: MlflowClient, name: str, value: float | None, gate: str = "") -> ModelVersion:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {"finetuned.text_ppl": str(value), "pruned.text_ppl": "99"} if value else {}
    return client.create_model_version(
        name, "s3://b/c", tags=tags | ({"gate": gate} if gate else {})
    )


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    aliases = client.get_registered_model(name).aliases
    return {alias: str(number) for alias, number in aliases.items()}


def test_a_better_version_becomes_champion_and_the_former_one_previous(
    client: MlflowClient,
) -> None:
    for value, gate, wanted, after in [
        (10.0, "passed", "champion", {"candidate": "1", "champion": "1"}),
        (8.0, "failed", "rejected", {"candidate": "1", "champion": "1"}),
        (9.6, "none", "candidate", {"candidate": "3", "champion": "1"}),
        (9.5, "passed", "champion", {"candidate": "4", "champion": "4", "previous": "1"}),
        (None, "", "candidate", {"candidate": "5", "champion": "4", "previous": "1"}),
    ]:
        created = version(client, "a", value, gate)
        decision = promotion.decide(client, PPL, created)
        assert decision["decision"] == wanted
        assert aliases(client, "a") == after
        recorded = json.loads(client.get_model_version("a", created.version).tags["promotion"])
        assert recorded == decision
        assert promotion.decide(client, PPL, created) is None
    decision = json.loads(client.get_model_version("a", "4").tags["promotion"])
    assert (decision["value"], decision["champion"], decision["champion_value"]) == (9.5, "1", 10.0)
    assert decision["improvement"] == pytest.approx(0.05)


def test_the_direction_of_the_metric_is_a_setting(client: MlflowClient) -> None:
    settings = Promotion(metric="text_ppl", direction="higher")
    for value in (0.5, 0.6, 0.6):
        promotion.decide(client, settings, version(client, "h", value))
    assert aliases(client, "h") == {"candidate": "3", "champion": "2", "previous": "1"}


def test_a_decision_after_a_crash_is_the_same(client: MlflowClient) -> None:
    for value in (10.0, 5.0):
        promotion.decide(client, PPL, version(client, "c", value))
    client.delete_model_version_tag("c", "2", "promotion")
    assert (
        promotion.decide(client, PPL, client.get_model_version("c", "2"))["decision"] == "champion"
    )
    assert aliases(client, "c") == {"candidate": "2", "champion": "2", "previous": "1"}


def test_a_person_can_promote_and_roll_back(client: MlflowClient) -> None:
    for value, gate in ((10.0, "passed"), (5.0, "passed"), (4.0, "failed")):
        promotion.decide(client, PPL, version(client, "p", value, gate))
    with pytest.raises(UserError, match="did not pass its gate"):
        promotion.promote(client, "p", "3", force=False)
    decision = promotion.promote(client, "p", "3", force=True)
    assert (decision["target"], decision["champion_before"]) == ("p/3", "2")
    assert aliases(client, "p") == {"candidate": "2", "champion": "3", "previous": "2"}
    promotion.rollback(client, "p")
    assert aliases(client, "p") == {"candidate": "2", "champion": "2", "previous": "3"}
    assert json.loads(client.get_model_version("p", "3").tags["promotion"])["decision"] == (
        "rolled back from"
    )
    with pytest.raises(UserError, match="'p' has no version 9"):
        promotion.promote(client, "p", "9", force=False)
    with pytest.raises(UserError, match="'none' has no alias 'candidate'"):
        promotion.promote(client, "none", None, force=False)
    with pytest.raises(UserError, match="'none' has no alias 'previous'"):
        promotion.rollback(client, "none")


def test_the_gate_is_read_from_the_report_if_there_is_no_tag(
    client: MlflowClient, tmp_path: Path
) -> None:
    experiment = client.create_experiment("gates", (tmp_path / "e").as_uri())
    client.create_registered_model("g")
    for content, wanted in [
        ({}, "none"),
        ({"gate": {"passed": None}}, "none"),
        ({"gate": {"passed": True}}, "passed"),
        ({"gate": {"passed": False}}, "failed"),
    ]:
        run = client.create_run(experiment).info.run_id
        client.log_dict(run, content, "report.json")
        created = client.create_model_version("g", "s3://b/c", run_id=run)
        assert promotion.gate_of(client, created) == wanted
