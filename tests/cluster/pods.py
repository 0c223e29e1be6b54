"""Pods of the stand-ins: processes with a root file system of their own, see pod.sh."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

AT_ONCE = 2
"""Steps that run side by side."""
ENVIRONMENT = {
    "PATH": "/app/.venv/bin:/usr/local/bin:/usr/bin:/bin",
    "ZENML_CUSTOM_SOURCE_ROOT": "/app",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "OMP_NUM_THREADS": "1",
}
"""That of the image."""


@dataclass
class Node:
    """What runs pods: the folder of their logs, the image, and the Python that it was made from.

    `pods.jsonl` in the folder has a line for each pod that ended.
    """

    folder: Path
    image: str
    python: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def run(
        self, pod: str, step: str, command: list[str], environment: dict[str, str],
        volumes: list[str],
    ) -> int:  # fmt: skip
        """Runs the container of a pod with these volumes, SOURCE:TARGET; its exit code."""
        script = str(Path(__file__).with_name("pod.sh"))
        began = time.monotonic()
        with (self.folder / f"{pod}.log").open("wb") as log:
            process = subprocess.Popen(
                [script, pod, self.image, self.python, " ".join(volumes), *command],
                # The store records it with each request.
                env={**ENVIRONMENT, **environment, "AWS_SDK_UA_APP_ID": step},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes[pod] = process
        code = process.wait()
        del self.processes[pod]
        code = code if code >= 0 else 128 - code
        line = {"pod": pod, "step": step, "code": code, "began": round(began - self.started, 1),
                "seconds": round(time.monotonic() - began, 1)}  # fmt: skip
        with (self.folder / "pods.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return code
