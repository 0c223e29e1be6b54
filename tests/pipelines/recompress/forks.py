"""Passes in separate processes that share their imports: a host process forks them.

The host reads one JSON request a line. The events of a pass go to a file. `at` is a part of the
line of an event at which a fault is injected: the pass is killed (-9) or stopped, another process
is killed, or a model version is deleted.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import stack

ROOT = Path(__file__).parents[3]
TIMEOUT = 240


@dataclass
class PassResult:
    code: int
    events: list[dict[str, Any]]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [content for content in self.events if content["event"] == event]

    def steps(self, state: str) -> list[str]:
        return [content["step"] for content in self.of("step") if content["state"] == state]

    def versions(self, event: str) -> list[str]:
        return [content["version"] for content in self.of(event)]


def _without_mlflow() -> dict[str, str]:
    """The environment without what MLflow adds when a test sets its tracking URI."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


class Host:
    """The client of the host process. Passes run side by side."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipelines.recompress.forks", str(home)],
            cwd=home.parent, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**_without_mlflow(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._home, self._count = home, 0

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(TIMEOUT)

    def run(self, path: Path, **request: Any) -> PassResult:
        return self.wait(self.start(path, **request))

    def start(self, path: Path, **request: Any) -> tuple[int, Path]:
        """Starts a pass; returns its process number and the file of its events."""
        self._count += 1
        out = self._home.parent / f"pass-{self._count}.jsonl"
        content = {"path": str(path), "home": str(self._home), "out": str(out), **request}
        return int(self._ask({"do": "start", **content})), out

    def wait(self, started: tuple[int, Path]) -> PassResult:
        pid, out = started
        code = int(self._ask({"do": "wait", "pid": pid}))
        return PassResult(code, [json.loads(line) for line in out.read_text().splitlines()])

    def _ask(self, request: dict[str, Any]) -> str:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


class _FaultyStream:
    """A stream that injects a fault once a line contains `at`."""

    def __init__(self, stream: Any, at: str | None, then: list[str]) -> None:
        self._stream, self._at, self._then = stream, at, then

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        if self._at and self._at in text:
            self._at = None
            _inject(*self._then)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _inject(fault: str, *arguments: str) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "kill_group":
        os.killpg(int(arguments[0]), signal.SIGKILL)
    elif fault == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        from mlflow import MlflowClient

        MlflowClient().delete_model_version(*arguments)


def _child(request: dict[str, Any]) -> None:
    from pipelines.recompress.run import run_pass

    os.environ.update(request.get("env", {}))
    then = request.get("then", ["kill"])
    out = Path(request["out"]).open("w")  # noqa: SIM115  (until the process ends)
    sys.stdout = _FaultyStream(out, request.get("at"), then)
    code = 1
    try:
        code = run_pass(Path(request["path"]), Path(request["home"]))
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve(home: Path) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    stack.quiet_libraries()
    stack.use_home(home)
    for module in ("pipelines.compress", "pipelines.recompress.one_pass", "adapruner.report.page"):
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _child(request)
            answers.write(f"{pid}\n")
        else:
            _, status = os.waitpid(request["pid"], 0)
            answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
