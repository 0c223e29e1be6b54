from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from adapruner.errors import UserError
from pipelines.schedules.kubernetes import LARGEST_FILE, Resources, manifest
from tests.pipelines.schedules.users import EVERY_QUARTER

KUBERNETES = "1.31"
RESOURCES = {
    "image": "r.example/a@sha256:0a",
    "namespace": "models",
    "secret": "mlflow-login",
    "cpu": "4",
    "memory": "8Gi",
    "storage": "50Gi",
}


def objects(file: Path, **changes: str) -> list[dict[str, Any]]:
    resources = Resources(**{**RESOURCES, **changes})
    return list(yaml.safe_load_all(manifest("passes", file, EVERY_QUARTER, resources)))


def test_the_cronjob_runs_one_pass_at_a_time_in_utc_without_rights_or_secrets(
    tmp_path: Path,
) -> None:
    text = "# comment\nsources: [models:/mine]\nodd: 'é: |'\n"
    (tmp_path / "passes.yaml").write_text(text)
    config, volume, job = objects(tmp_path / "passes.yaml")
    assert config["data"] == {"recompress.yaml": text}
    names = {x["metadata"]["name"] for x in (config, volume, job)}
    assert names == {"adapruner-passes"}
    assert {x["metadata"]["namespace"] for x in (config, volume, job)} == {"models"}
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("*/15 * * * *", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] > 10
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    (container,) = pod["containers"]
    assert container["args"][:2] == ["recompress", "-c"]
    assert container["envFrom"] == [{"secretRef": {"name": "mlflow-login"}}]
    assert container["env"] == [{"name": "HOME", "value": "/data"}]
    assert container["resources"]["limits"] == {"memory": "8Gi"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {row["name"] for row in pod["volumes"]}
    assert container["args"][2] == f"{mounted['config']}/recompress.yaml"


@pytest.mark.parametrize("name", RESOURCES)
def test_an_invalid_resource_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "passes.yaml").touch()
    with pytest.raises(UserError, match=f"--{name} 'x;Y'"):
        objects(tmp_path / "passes.yaml", **{name: "x;Y"})


def test_a_file_that_a_configmap_can_t_hold_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "passes.yaml"
    file.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(UserError, match=str(LARGEST_FILE)):
        objects(file)
    file.write_bytes(b"\xff")
    with pytest.raises(UserError, match="can't be read as text"):
        objects(file)


def test_a_pass_gets_gpus_nodes_and_a_volume_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "passes.yaml"
    file.touch()
    selectors = ("accelerator=nvidia", "topology.kubernetes.io/zone=a")
    _, volume, job = objects(file, gpus=2, node_selectors=selectors)  # type: ignore[arg-type]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"accelerator": "nvidia", "topology.kubernetes.io/zone": "a"}
    limits = pod["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "8Gi", "nvidia.com/gpu": "2"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert volume["spec"]["accessModes"] == ["ReadWriteOncePod"]
    with pytest.raises(UserError, match="--node-selector 'x;Y'"):
        objects(file, node_selectors=("x;Y",))  # type: ignore[arg-type]


def test_the_manifest_is_valid_for_kubernetes(tmp_path: Path) -> None:
    file = tmp_path / "passes.yaml"
    file.touch()
    for item in objects(file, gpus=1, node_selectors=("a=b",)):  # type: ignore[arg-type]
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
