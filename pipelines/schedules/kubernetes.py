"""A CronJob of Kubernetes, with the recompress file and a volume for the home folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapruner.errors import UserError

if TYPE_CHECKING:
    from pipelines.schedules.timetable import Timetable

FILE = "recompress.yaml"
CONFIG_FOLDER = "/etc/adapruner"
DATA_FOLDER = "/data"
USER = 1000
"""The user of the image."""
LARGEST_FILE = 512 << 10
IMAGE = r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}"
NAMESPACE = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
CPU = r"[1-9][0-9]{0,4}m?"
SELECTOR = rf"(?:{NAME}/)?[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}=[A-Za-z0-9._-]{{0,63}}"
AMOUNT = r"[1-9][0-9]{0,4}(?:Ki|Mi|Gi|Ti)"


ACCESS_MODES = ("ReadWriteOncePod", "ReadWriteOnce", "ReadWriteMany")
"""The first needs Kubernetes 1.29 and a CSI driver; the second lets all pods of a node write."""
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Resources:
    """Image, namespace and resources of a CronJob. `secret` is a Secret's name, not its content.

    `node_selectors` are KEY=VALUE. The default access mode lets one pod use the volume at a time,
    whichever started it: two passes on one volume would share its SQLite files.
    """

    image: str
    namespace: str
    secret: str
    cpu: str
    memory: str
    storage: str
    gpus: int = 0
    node_selectors: tuple[str, ...] = ()
    access_mode: str = ACCESS_MODES[0]


def manifest(name: str, file: Path, when: Timetable, resources: Resources) -> str:
    """ConfigMap, volume claim and CronJob as YAML. Raises UserError for an invalid resource."""
    _check(resources)
    labels = {"app.kubernetes.io/name": "adapruner", "app.kubernetes.io/instance": name}
    meta = {"name": f"adapruner-{name}", "namespace": resources.namespace, "labels": labels}
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {FILE: _text(file)},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": meta,
            "spec": {
                "accessModes": [resources.access_mode],
                "resources": {"requests": {"storage": resources.storage}},
            },
        },
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": meta,
            "spec": {"schedule": when.cron, **_job(meta, resources)},
        },
    ]
    dumped = yaml.dump_all(objects, Dumper=_ReadableDumper, sort_keys=False, allow_unicode=True)
    return f"# Times are UTC. Apply with: kubectl apply -f FILE\n{dumped}"


class _ReadableDumper(yaml.SafeDumper):
    """YAML without anchors, in which a text of several lines is a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_ReadableDumper.add_representer(str, _ReadableDumper.represent_text)


def _job(meta: dict[str, Any], resources: Resources) -> dict[str, Any]:
    return {
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 0,  # the next pass goes on
                "activeDeadlineSeconds": 2 * 86400,  # a pass that hangs would block all others
                "template": {
                    "metadata": {"labels": meta["labels"]},
                    "spec": _pod(meta["name"], resources),
                },
            }
        },
    }


def _pod(name: str, resources: Resources) -> dict[str, Any]:
    placement: dict[str, Any] = {}
    if resources.node_selectors:
        pairs = (selector.split("=", 1) for selector in resources.node_selectors)
        placement["nodeSelector"] = dict(pairs)
    if resources.gpus:
        placement["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return {
        **placement,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(resources)],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "data", "persistentVolumeClaim": {"claimName": name}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(resources: Resources) -> dict[str, Any]:
    requests = {"cpu": resources.cpu, "memory": resources.memory}
    limits = {"memory": resources.memory}
    if resources.gpus:
        limits[GPU] = str(resources.gpus)
    return {
        "name": "adapruner",
        "image": resources.image,
        "args": ["recompress", "-c", f"{CONFIG_FOLDER}/{FILE}", "--home", f"{DATA_FOLDER}/home"],
        "workingDir": DATA_FOLDER,
        "env": [{"name": "HOME", "value": DATA_FOLDER}],
        "envFrom": [{"secretRef": {"name": resources.secret}}],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "data", "mountPath": DATA_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _check(resources: Resources) -> None:
    rules = (
        ("--image", resources.image, IMAGE, "NAME:TAG or NAME@DIGEST"),
        ("--namespace", resources.namespace, NAMESPACE, "a name"),
        ("--secret", resources.secret, NAME, "the name of a Secret"),
        ("--cpu", resources.cpu, CPU, "such as 4 or 500m"),
        ("--memory", resources.memory, AMOUNT, "such as 16Gi"),
        ("--storage", resources.storage, AMOUNT, "such as 50Gi"),
        *(("--node-selector", pair, SELECTOR, "KEY=VALUE") for pair in resources.node_selectors),
    )
    for option, value, pattern, wanted in rules:
        if not re.fullmatch(pattern, value, re.A):
            raise UserError(f"{option} {value!r}: expected {wanted}")


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: can't be read as text ({error}); give a YAML file") from None
    if len(content) > LARGEST_FILE:
        raise UserError(f"{file}: {len(content)} bytes; a ConfigMap holds {LARGEST_FILE} at most")
    return text
