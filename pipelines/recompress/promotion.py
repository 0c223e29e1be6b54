"""Which version of a registered model is the candidate, the champion, and the one before.

A version whose gate passed, or that has none, becomes `candidate`. If it is better than `champion`
by the configured metric, or there is no champion, it becomes that too, and the former champion
`previous`. Whatever is decided stands in the version's tag `promotion`, with its numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from adapruner.errors import UserError
from adapruner.hashing import hash_json
from pipelines.log import utc_now
from pipelines.recompress.lineage import by_alias, existing
from pipelines.recompress.lock import hold
from pipelines.recompress.config import Promotion

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
TAG = "promotion"
EXPIRY = PATIENCE = 60
# A figure of the fine-tuned model, or of the pruned one where nothing was fine-tuned.
MODELS = ("", "finetuned.", "pruned.")


def decide(
    client: MlflowClient, settings: Promotion, version: ModelVersion
) -> dict[str, Any] | None:
    """Decide about a version that nothing was decided about, and do it; None where it was.

    A crash in between is made good by calling this again. Raises UserError where another keeps
    deciding about the same model.
    """
    with _alone(client, version.name):
        version = client.get_model_version(version.name, version.version)
        if TAG in version.tags:
            return None
        champion = by_alias(client, version.name, CHAMPION)
        decision = {"at": utc_now(), **_judge(client, settings, version, champion)}
        if decision["decision"] != "rejected":
            client.set_registered_model_alias(version.name, CANDIDATE, version.version)
        if decision["decision"] == CHAMPION:
            _crown(client, version, champion)
        _note(client, version, decision)
        return decision


def promote(client: MlflowClient, name: str, number: str | None, force: bool) -> dict[str, Any]:
    """Make a version, else the candidate, the champion because a person says so.

    Raises UserError for one that is not there or, unless forced, whose gate did not pass.
    """
    with _alone(client, name):
        version = existing(client, name, number) if number else by_alias(client, name, CANDIDATE)
        if version is None:
            wanted = f"version {number}" if number else f"alias '{CANDIDATE}'; give a version"
            raise UserError(f"the registered model '{name}' has no {wanted}")
        gate = gate_of(client, version)
        if gate == "failed" and not force:
            raise UserError(
                f"models:/{name}/{version.version} did not pass its gate; see its report, or give "
                "--force"
            )
        champion = by_alias(client, name, CHAMPION)
        _crown(client, version, champion)
        decision = _by_hand("promoted by hand", version, champion, gate=gate)
        _note(client, version, decision)
        return decision


def rollback(client: MlflowClient, name: str) -> dict[str, Any]:
    """Make the previous champion the champion again, and the champion the previous one.

    Raises UserError where there is no previous one.
    """
    with _alone(client, name):
        previous = by_alias(client, name, PREVIOUS)
        if previous is None:
            raise UserError(
                f"the registered model '{name}' has no alias '{PREVIOUS}' to go back to; "
                "`adapruner promote` takes any version"
            )
        champion = by_alias(client, name, CHAMPION)
        _crown(client, previous, champion)
        decision = _by_hand("rolled back to", previous, champion)
        _note(client, previous, decision)
        if champion is not None:
            _note(client, champion, {**decision, "decision": "rolled back from"})
        return decision


def gate_of(client: MlflowClient, version: ModelVersion) -> str:
    """passed, failed or none: the version's tag `gate`, else what its run's report says."""
    if tag := version.tags.get("gate"):
        return str(tag)
    files = client.list_artifacts(version.run_id) if version.run_id else []
    if "report.json" not in {file.path for file in files}:
        return "none"
    with TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(version.run_id, "report.json", folder)).read_text()
    passed = (json.loads(text).get("gate") or {}).get("passed")
    return "none" if passed is None else ("passed" if passed else "failed")


def value_of(version: ModelVersion, metric: str) -> float | None:
    """A figure among a version's tags."""
    for model in MODELS:
        try:
            return float(version.tags[model + metric])
        except (KeyError, ValueError):
            continue
    return None


def _judge(
    client: MlflowClient,
    settings: Promotion,
    version: ModelVersion,
    champion: ModelVersion | None,
) -> dict[str, Any]:
    facts: dict[str, Any] = {"gate": gate_of(client, version)}
    if facts["gate"] == "failed":
        return {"decision": "rejected", "reason": "its gate did not pass", **facts}
    if settings.metric is None:
        return {"decision": CANDIDATE, "reason": "no promotion.metric is set", **facts}
    facts |= {"metric": settings.metric, "value": value_of(version, settings.metric)}
    if facts["value"] is None:
        return {"decision": CANDIDATE, "reason": f"it has no {settings.metric}", **facts}
    if champion is None or champion.version == version.version:
        return {"decision": CHAMPION, "reason": "there is no other champion", **facts}
    theirs = value_of(champion, settings.metric)
    facts |= {"champion": str(champion.version), "champion_value": theirs}
    if theirs is None:
        return {"decision": CANDIDATE, "reason": "the champion lacks this metric", **facts}
    gain = theirs - facts["value"] if settings.direction == "lower" else facts["value"] - theirs
    facts["improvement"] = gain / abs(theirs) if theirs else gain
    if gain > 0 and facts["improvement"] >= settings.min_improvement:
        return {"decision": CHAMPION, "reason": "better than the champion", **facts}
    return {"decision": CANDIDATE, "reason": "not better than the champion by enough", **facts}


def _crown(client: MlflowClient, version: ModelVersion, champion: ModelVersion | None) -> None:
    """`previous` first: a crash in between leaves the champion as it was."""
    if champion is not None and champion.version == version.version:
        return
    if champion is not None:
        client.set_registered_model_alias(version.name, PREVIOUS, champion.version)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)


def _by_hand(
    word: str, version: ModelVersion, champion: ModelVersion | None, **facts: Any
) -> dict[str, Any]:
    former = None if champion is None else str(champion.version)
    decision = {"at": utc_now(), "decision": word, "champion_before": former, **facts}
    return {**decision, "target": f"{version.name}/{version.version}"}


def _note(client: MlflowClient, version: ModelVersion, decision: dict[str, Any]) -> None:
    client.set_model_version_tag(version.name, version.version, TAG, json.dumps(decision))


@contextmanager
def _alone(client: MlflowClient, name: str) -> Iterator[None]:
    """Nobody else moves the aliases of this model meanwhile."""
    until = time.monotonic() + PATIENCE
    while True:
        with hold(client, f"promote-{hash_json(name)[:16]}", EXPIRY) as held:
            if held is not None:
                yield
                return
        if time.monotonic() > until:
            raise UserError(f"another process decides about '{name}'; try again in a minute")
        time.sleep(1)
