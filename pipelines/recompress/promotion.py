"""The aliases of a registered model: candidate, champion and previous champion.

A version whose gate passed, or that has none, becomes `candidate`. If it is better than `champion`
by the configured metric, or there is no champion, it becomes `champion` as well, and the former
champion `previous`. The decision and its numbers are in the version's tag `promotion`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from adapruner.errors import UserError
from adapruner.files import read_json
from adapruner.hashing import hash_json
from pipelines.log import utc_now
from pipelines.recompress.config import Promotion
from pipelines.recompress.jobs import find_version, version_with_alias
from pipelines.recompress.lock import hold

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
TAG = "promotion"
GATES = ("passed", "failed", "none")
LOCK_SECONDS = WAIT_SECONDS = 60
PREFIXES = ("", "finetuned.", "pruned.")
"""Prefixes of a metric in the tags, in the order of preference."""


def decide(
    client: MlflowClient, settings: Promotion, version: ModelVersion
) -> dict[str, Any] | None:
    """Decides about a new version and sets its aliases; None if it was decided before.

    After a crash, a second call completes the first. Raises UserError if another process decides
    about the same model for too long.
    """
    with _exclusive(client, version.name):
        version = client.get_model_version(version.name, version.version)
        if TAG in version.tags:
            return None
        champion = version_with_alias(client, version.name, CHAMPION)
        decision = {"at": utc_now(), **_evaluate(client, settings, version, champion)}
        if decision["decision"] != "rejected":
            client.set_registered_model_alias(version.name, CANDIDATE, version.version)
        if decision["decision"] == CHAMPION:
            _set_champion(client, version, champion)
        _write_decision(client, version, decision)
        return decision


def promote(client: MlflowClient, name: str, number: str | None, force: bool) -> dict[str, Any]:
    """Makes a version, by default the candidate, the champion by the choice of a person.

    Raises UserError for a missing version and, unless forced, for one whose gate did not pass.
    """
    with _exclusive(client, name):
        if number:
            version = find_version(client, name, number)
        else:
            version = version_with_alias(client, name, CANDIDATE)
        if version is None:
            wanted = f"version {number}" if number else f"alias '{CANDIDATE}'; give a version"
            raise UserError(f"the registered model '{name}' has no {wanted}")
        gate = gate_of(client, version)
        if gate == "failed" and not force:
            raise UserError(
                f"models:/{name}/{version.version} did not pass its gate; see its report, or give "
                "--force"
            )
        champion = version_with_alias(client, name, CHAMPION)
        _set_champion(client, version, champion)
        decision = _manual_decision("promoted by hand", version, champion, gate=gate)
        _write_decision(client, version, decision)
        return decision


def rollback(client: MlflowClient, name: str) -> dict[str, Any]:
    """Exchanges the champion and the previous champion.

    Raises UserError if there is no previous one.
    """
    with _exclusive(client, name):
        previous = version_with_alias(client, name, PREVIOUS)
        if previous is None:
            raise UserError(
                f"the registered model '{name}' has no alias '{PREVIOUS}'; `adapruner "
                "promote` makes any version the champion"
            )
        champion = version_with_alias(client, name, CHAMPION)
        _set_champion(client, previous, champion)
        decision = _manual_decision("rolled back to", previous, champion)
        _write_decision(client, previous, decision)
        if champion is not None:
            _write_decision(client, champion, {**decision, "decision": "rolled back from"})
        return decision


def gate_of(client: MlflowClient, version: ModelVersion) -> str:
    """passed, failed or none: from the version's tag `gate`, else from the report of its run.

    A report that can't be read has not passed.
    """
    if (tag := version.tags.get("gate")) in GATES:
        return str(tag)
    run = version.run_id
    if not run or "report.json" not in {file.path for file in client.list_artifacts(run)}:
        return "none"
    with TemporaryDirectory() as folder:
        file = Path(client.download_artifacts(run, "report.json", folder))
        try:
            passed = (read_json(file).get("gate") or {}).get("passed")
        except (ValueError, AttributeError):
            return "failed"
    return "none" if passed is None else ("passed" if passed else "failed")


def value_of(version: ModelVersion, metric: str) -> float | None:
    """The value of a metric in the tags of a version: of the fine-tuned, else the pruned model."""
    for prefix in PREFIXES:
        try:
            value = float(version.tags[prefix + metric])
        except (KeyError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return None


def _evaluate(
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
    best = value_of(champion, settings.metric)
    facts |= {"champion": str(champion.version), "champion_value": best}
    if best is None:
        return {"decision": CANDIDATE, "reason": "the champion lacks this metric", **facts}
    gain = best - facts["value"] if settings.direction == "lower" else facts["value"] - best
    facts["improvement"] = gain / abs(best) if best else gain
    if gain > 0 and facts["improvement"] >= settings.min_improvement:
        return {"decision": CHAMPION, "reason": "better than the champion", **facts}
    return {"decision": CANDIDATE, "reason": "not better than the champion by enough", **facts}


def _set_champion(
    client: MlflowClient, version: ModelVersion, champion: ModelVersion | None
) -> None:
    """Sets `previous` first, so that a crash in between leaves the champion unchanged."""
    if champion is not None and champion.version == version.version:
        return
    if champion is not None:
        client.set_registered_model_alias(version.name, PREVIOUS, champion.version)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)


def _manual_decision(
    decision: str, version: ModelVersion, champion: ModelVersion | None, **facts: Any
) -> dict[str, Any]:
    return {
        "at": utc_now(),
        "decision": decision,
        "champion_before": None if champion is None else str(champion.version),
        **facts,
        "target": f"{version.name}/{version.version}",
    }


def _write_decision(client: MlflowClient, version: ModelVersion, decision: dict[str, Any]) -> None:
    client.set_model_version_tag(version.name, version.version, TAG, json.dumps(decision))


@contextmanager
def _exclusive(client: MlflowClient, name: str) -> Iterator[None]:
    """No other process moves the aliases of this model while the body runs."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        with hold(client, f"promote-{hash_json(name)[:16]}", LOCK_SECONDS) as held:
            if held is not None:
                yield
                return
        if time.monotonic() > until:
            raise UserError(f"another process decides about '{name}'; try again in a minute")
        time.sleep(1)
