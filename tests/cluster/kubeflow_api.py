"""The part of the API of Kubeflow Pipelines that the kfp client calls to run a compiled pipeline.

    python -m tests.cluster.kubeflow_api PORT FOLDER IMAGE PYTHON

Tasks run as isolated processes in the order of the pipeline; what depends on a failed one does not
run. FOLDER gets their logs, `pods.jsonl`, and the specification of each run.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.cluster.pods import AT_ONCE, Node

PREFIX = "/apis/v2beta1"
RUN_NAME = "{{$.pipeline_job_name}}"
"""The placeholder that Kubeflow replaces by the name of a run."""
EXPERIMENT = {"experiment_id": "default", "display_name": "Default"}


def execute(node: Node, run: dict[str, Any], spec: dict[str, Any]) -> None:
    """Runs the tasks of a compiled pipeline, and sets the state of the run."""
    tasks, name = spec["root"]["dag"]["tasks"], run["run_id"][:8]
    codes: dict[str, Future[int]] = {}

    def run_task(task: str) -> int:
        executor = spec["components"][tasks[task]["componentRef"]["name"]]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][executor]["container"]
        environment = {e["name"]: e["value"].replace(RUN_NAME, name) for e in container["env"]}
        command = [*container["command"], *container["args"]]
        step = container["args"][container["args"].index("--step_name") + 1]
        return node.run(f"{name}-{task}", step, command, environment, [])

    def when_ready(task: str) -> int:
        needed = tasks[task].get("dependentTasks", [])
        return 1 if any(codes[other].result() for other in needed) else run_task(task)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for task in in_order(tasks):  # so that none that waits is before what it waits for
            codes[task] = pool.submit(when_ready, task)
    failed = [task for task, code in codes.items() if code.result()]
    run["state"] = "FAILED" if failed else "SUCCEEDED"


def in_order(tasks: dict[str, Any]) -> list[str]:
    """The names of the tasks, each after those that it depends on."""
    ordered: list[str] = []
    while len(ordered) < len(tasks):
        ready = [
            name
            for name, task in tasks.items()
            if name not in ordered and set(task.get("dependentTasks", [])) <= set(ordered)
        ]
        assert ready, "the tasks depend on each other in a circle"
        ordered += ready
    return ordered


def application(node: Node) -> Starlette:
    runs: dict[str, dict[str, Any]] = {}

    async def create_run(request: Request) -> JSONResponse:
        content = await request.json()
        spec = content.pop("pipeline_spec")
        spec = spec.get("pipeline_spec", spec)
        now = datetime.now(UTC).isoformat()
        run = {**content, "run_id": str(uuid.uuid4()), "state": "RUNNING", "created_at": now}
        runs[run["run_id"]] = run
        (node.folder / f"run-{run['run_id']}.json").write_text(json.dumps(spec, indent=1))
        threading.Thread(target=execute, args=(node, run, spec), daemon=True).start()
        return JSONResponse(run)

    async def get_run(request: Request) -> JSONResponse:
        return JSONResponse(runs[request.path_params["id"]])

    async def experiments(request: Request) -> JSONResponse:
        is_list = request.method == "GET" and "id" not in request.path_params
        return JSONResponse({"experiments": [EXPERIMENT]} if is_list else EXPERIMENT)

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"multi_user": False})

    return Starlette(
        routes=[
            Route(f"{PREFIX}/healthz", health),
            Route(f"{PREFIX}/experiments", experiments, methods=["GET", "POST"]),
            Route(f"{PREFIX}/experiments/{{id}}", experiments),
            Route(f"{PREFIX}/runs", create_run, methods=["POST"]),
            Route(f"{PREFIX}/runs/{{id}}", get_run),
        ]
    )


if __name__ == "__main__":
    port, folder, image, python = sys.argv[1:]
    app = application(Node(Path(folder), image, python))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
