"""A CronJob of Kubernetes, with the file of the passes and a volume for the home folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import mistake
from pipelines.schedules.timetable import Timetable

FILE = "recompress.yaml"
CONFIG_FOLDER = "/etc/adapruner"
DATA_FOLDER = "/data"
USER = 1000  # the image's
LARGEST_FILE = 512 << 10
NAME = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
CPU = r"[1-9][0-9]{0,4}m?"
AMOUNT = r"[1-9][0-9]{0,4}(?:Ki|Mi|Gi|Ti)"


@dataclass(frozen=True)
class Place:
    """Where a CronJob runs and what it gets. `secret` is a Secret's name, never its content."""

    image: str
    namespace: str
    secret: str
    cpu: str
    memory: str
    storage: str


def manifest(name: str, file: Path, when: Timetable, place: Place) -> str:
    """ConfigMap, volume claim and CronJob as YAML. Raises UserError."""
    _check(place)
    labels = {"app.kubernetes.io/name": "adapruner", "app.kubernetes.io/instance": name}
    meta = {"name": f"adapruner-{name}", "namespace": place.namespace, "labels": labels}
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
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": place.storage}},
            },
        },
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": meta,
            "spec": {"schedule": when.cron, **_job(meta, place)},
        },
    ]
    dumped = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    return f"# Times are UTC. Apply with: kubectl apply -f FILE\n{dumped}"


class _Plain(yaml.SafeDumper):
    """For people: no anchors, and a text of several lines is a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Plain.add_representer(str, _Plain.represent_text)


def _job(meta: dict[str, Any], place: Place) -> dict[str, Any]:
    return {
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 0,  # the next pass makes good
                "activeDeadlineSeconds": 2 * 86400,  # a pass that hangs would forbid all others
                "template": {
                    "metadata": {"labels": meta["labels"]},
                    "spec": _pod(meta["name"], place),
                },
            }
        },
    }


def _pod(name: str, place: Place) -> dict[str, Any]:
    return {
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
        "containers": [_container(place)],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "data", "persistentVolumeClaim": {"claimName": name}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(place: Place) -> dict[str, Any]:
    resources = {"cpu": place.cpu, "memory": place.memory}
    return {
        "name": "adapruner",
        "image": place.image,
        "args": ["recompress", "-c", f"{CONFIG_FOLDER}/{FILE}", "--home", f"{DATA_FOLDER}/home"],
        "workingDir": DATA_FOLDER,
        "env": [{"name": "HOME", "value": DATA_FOLDER}],
        "envFrom": [{"secretRef": {"name": place.secret}}],
        "resources": {"requests": resources, "limits": {"memory": place.memory}},
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


def _check(place: Place) -> None:
    rules = (
        ("--image", place.image, r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}", "NAME:TAG or NAME@DIGEST"),
        ("--namespace", place.namespace, r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", "a name"),
        ("--secret", place.secret, NAME, "the name of a Secret"),
        ("--cpu", place.cpu, CPU, "such as 4 or 500m"),
        ("--memory", place.memory, AMOUNT, "such as 16Gi"),
        ("--storage", place.storage, AMOUNT, "such as 50Gi"),
    )
    for option, given, form, wanted in rules:
        if not re.fullmatch(form, given, re.A):
            raise mistake(f"{option} {given!r}: wanted {wanted}")


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise mistake(f"{file}: can't be read as text ({error}); give a YAML file") from None
    if len(content) > LARGEST_FILE:
        raise mistake(f"{file}: {len(content)} bytes; a ConfigMap takes {LARGEST_FILE} at most")
    return text
