"""What kubernetes.yaml and configs/cluster.yaml ask of Kubernetes is valid there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[1]
KUBERNETES = "1.31"
OBJECTS = list(yaml.safe_load_all((ROOT / "kubernetes.yaml").read_text()))
RUN: dict[str, Any] = yaml.safe_load((ROOT / "configs/cluster.yaml").read_text())
ORCHESTRATOR = "orchestrator.kubernetes"


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: f"{item['kind']}-{item['metadata']}")
def test_every_manifest_is_valid(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, KUBERNETES, strict=True)


def pods() -> dict[str, dict[str, Any]]:
    """The pod settings of the file: of all steps, of the orchestrator, of single steps."""
    common = RUN["settings"][ORCHESTRATOR]
    of_steps = {
        name: step["settings"][ORCHESTRATOR]["pod_settings"] for name, step in RUN["steps"].items()
    }
    return {
        "all": common["pod_settings"],
        "orchestrator": common["orchestrator_pod_settings"],
        **of_steps,
    }


@pytest.mark.parametrize("name", pods())
def test_every_pod_of_the_example_is_valid_and_uses_what_the_manifests_create(name: str) -> None:
    settings = pods()[name]
    container = {"name": "main", "image": "adapruner"}
    renamed = {"env_from": "envFrom", "volume_mounts": "volumeMounts", "resources": "resources"}
    container |= {new: settings[old] for old, new in renamed.items() if old in settings}
    spec = {
        "containers": [container],
        "volumes": settings.get("volumes", []),
        "nodeSelector": settings.get("node_selectors", {}),
        "tolerations": settings.get("tolerations", []),
        **settings.get("additional_pod_spec_args", {}),
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "step"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    created = {(item["kind"], item["metadata"]["name"]) for item in OBJECTS}
    secrets = {source["secretRef"]["name"] for source in settings["env_from"]}
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in settings.get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    assert {("Secret", name) for name in secrets} <= created
    assert {("PersistentVolumeClaim", name) for name in claims} <= created


def test_every_step_with_a_gpu_is_one_of_the_pipeline() -> None:
    from tests.pipelines import small

    steps = small.ALWAYS | small.BEFORE_PRUNING | small.AFTER_PRUNING
    assert set(RUN["steps"]) <= steps
    assert RUN["settings"][ORCHESTRATOR]["step_pod_service_account_name"] in {
        item["metadata"]["name"] for item in OBJECTS if item["kind"] == "ServiceAccount"
    }
