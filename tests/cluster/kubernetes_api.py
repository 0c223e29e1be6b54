"""The part of a Kubernetes API that ZenML's orchestrator asks, with pods as isolated processes.

    python -m tests.cluster.kubernetes_api PORT FOLDER IMAGE PYTHON

Objects are kept in memory and their JSON in FOLDER, beside the pods' logs; `pods.jsonl` has a line
for each pod that ended. A Job starts its pod, and again up to `backoffLimit`. Claims and host paths
are folders of this machine; `resources`, selectors and service accounts are stored and not applied.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import uuid
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.cluster.pods import AT_ONCE, Node

KINDS = ("jobs", "pods", "secrets", "cronjobs", "serviceaccounts", "rolebindings", "namespaces")
Object = dict[str, Any]


class Cluster:
    """All objects by kind and name, and the processes of pods that run."""

    def __init__(self, node: Node) -> None:
        self.node, self.folder = node, node.folder
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.deleted: set[str] = set()
        self.slots = threading.Semaphore(AT_ONCE)

    def add(self, kind: str, namespace: str, new: Object) -> Object:
        meta = new["metadata"]
        meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if kind == "secrets":
            plain = new.pop("stringData", None) or {}
            new["data"] = {**(new.get("data") or {}), **{k: encode(v) for k, v in plain.items()}}
        if kind == "jobs":
            new["status"] = {"active": 1}
            complete(new["spec"])
            threading.Thread(target=self.run_job, args=(new,), daemon=True).start()
        self.objects[kind][meta["name"]] = new
        (self.folder / f"{kind}-{meta['name']}.json").write_text(json.dumps(new, indent=1))
        return new

    def remove(self, kind: str, name: str) -> None:
        if kind != "jobs":
            del self.objects[kind][name]
            return
        self.deleted.add(name)
        for pod, process in list(self.node.processes.items()):
            if pod.startswith(f"{name}-"):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)

    def run_job(self, job: Object) -> None:
        name, limit = job["metadata"]["name"], job["spec"].get("backoffLimit", 6)
        codes = []
        while len(codes) <= limit and name not in self.deleted:
            codes.append(self.run_pod(job))
            if codes[-1] == 0:
                done = {"type": "Complete", "status": "True"}
                job["status"] = {"succeeded": 1, "conditions": [done]}
                return
        failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
        message = {"message": "Job has reached the specified backoff limit"}
        job["status"] = {"failed": len(codes), "conditions": [failed | message]}

    def run_pod(self, job: Object) -> int:
        """Runs one pod of a job; its exit code."""
        template, name = job["spec"]["template"], job["metadata"]["name"]
        container = template["spec"]["containers"][0]
        pod = f"{name}-{uuid.uuid4().hex[:5]}"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "controller": True}
        meta = {
            "name": pod, "namespace": job["metadata"]["namespace"], "uid": str(uuid.uuid4()),
            "creationTimestamp": now(), "annotations": template["metadata"].get("annotations"),
            "labels": {**(template["metadata"].get("labels") or {}), "job-name": name},
            "ownerReferences": [owner | {"uid": job["metadata"]["uid"]}],
        }  # fmt: skip
        self.objects["pods"][pod] = {
            "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"],
            "status": {"phase": "Pending", "containerStatuses": []},
        }  # fmt: skip
        step = (job["metadata"].get("labels") or {}).get("step_name", "orchestrator")
        command = [*(container.get("command") or []), *(container.get("args") or [])]
        environment = self.environment(container)
        volumes = self.volumes(template["spec"], container)
        # The orchestrator's own pod waits for all others: it must not take their place.
        with self.slots if "--step_name" in command else nullcontext():
            self.objects["pods"][pod]["status"]["phase"] = "Running"
            code = self.node.run(pod, step, command, environment, volumes)
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        state = {"name": container["name"], "image": container["image"], "imageID": "",
                 "ready": False, "restartCount": 0, "state": {"terminated": ended}}  # fmt: skip
        phase = "Succeeded" if code == 0 else "Failed"
        self.objects["pods"][pod]["status"] = {"phase": phase, "containerStatuses": [state]}
        return code

    def environment(self, container: Object) -> dict[str, str]:
        variables = {"KUBECONFIG": "/var/run/kubeconfig"}
        for source in container.get("envFrom") or []:
            data = self.objects["secrets"][source["secretRef"]["name"]]["data"]
            variables |= {key: decode(value) for key, value in data.items()}
        for variable in container.get("env") or []:
            if (reference := (variable.get("valueFrom") or {}).get("secretKeyRef")) is not None:
                data = self.objects["secrets"][reference["name"]]["data"]
                variables[variable["name"]] = decode(data[reference["key"]])
            else:
                variables[variable["name"]] = variable.get("value") or ""
        return variables

    def volumes(self, spec: Object, container: Object) -> list[str]:
        """SOURCE:TARGET of the claims that a container mounts, and of the kubeconfig's folder."""
        claims = {
            volume["name"]: self.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
            for volume in spec.get("volumes") or []
            if "persistentVolumeClaim" in volume
        }
        for claim in claims.values():
            claim.mkdir(parents=True, exist_ok=True)
        mounts = container.get("volumeMounts") or []
        mounted = [f"{claims[m['name']]}:{m['mountPath']}" for m in mounts if m["name"] in claims]
        return [f"{self.folder / 'run'}:/var/run", *mounted]


def complete(spec: Object) -> None:
    """Sets the default that the real API server adds to a pod failure policy."""
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for condition in rule.get("onPodConditions") or []:
            condition.setdefault("status", "True")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    return base64.b64decode(text).decode()


def failure(code: int, reason: str) -> Response:
    content = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return JSONResponse({**content, "reason": reason, "message": reason}, code)


def matches(item: Object, labels: str, fields: str) -> bool:
    own = item["metadata"].get("labels") or {}
    pairs = [part.partition("=") for part in labels.split(",") if part]
    phase = fields.removeprefix("status.phase=")
    return all(own.get(key) == value for key, _, value in pairs) and (
        not fields or item["status"].get("phase") == phase
    )


def application(cluster: Cluster) -> Starlette:
    async def collection(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in KINDS:
            return failure(404, "NotFound")
        if request.method == "POST":
            new = await request.json()
            if new["metadata"]["name"] in cluster.objects[kind]:
                return failure(409, "AlreadyExists")
            return JSONResponse(cluster.add(kind, request.path_params.get("ns", ""), new), 201)
        query = request.query_params
        selectors = query.get("labelSelector", ""), query.get("fieldSelector", "")
        items = [o for o in list(cluster.objects[kind].values()) if matches(o, *selectors)]
        return JSONResponse({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})

    async def single(request: Request) -> Response:
        kind, name = request.path_params["kind"], request.path_params["name"]
        found = cluster.objects.get(kind, {}).get(name)
        if found is None:
            return failure(404, "NotFound")
        if request.method == "PATCH":
            patch = await request.json()
            annotations = patch.get("metadata", {}).get("annotations") or {}
            found["metadata"]["annotations"] = {
                **(found["metadata"].get("annotations") or {}), **annotations
            }  # fmt: skip
        if request.method == "DELETE":
            cluster.remove(kind, name)
        return JSONResponse(found)

    async def log(request: Request) -> Response:
        file = cluster.folder / f"{request.path_params['name']}.log"
        return PlainTextResponse(file.read_text() if file.exists() else "")

    routes = []
    for group in ("/api/v1", "/apis/batch/v1", "/apis/rbac.authorization.k8s.io/v1"):
        inside = f"{group}/namespaces/{{ns}}"
        routes += [
            Route(f"{inside}/pods/{{name}}/log", log),
            Route(f"{inside}/{{kind}}/{{name}}", single, methods=["GET", "PATCH", "DELETE"]),
            Route(f"{inside}/{{kind}}", collection, methods=["GET", "POST"]),
            Route(f"{group}/{{kind}}", collection, methods=["GET", "POST"]),
        ]
    return Starlette(routes=routes)


if __name__ == "__main__":
    port, folder, image, python = sys.argv[1:]
    app = application(Cluster(Node(Path(folder), image, python)))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
