"""The whole pipeline on ZenML's Kubernetes orchestrator: `make verify-cluster`.

Every pod is a process with a root file system of its own, which holds the image and its volumes.
The API server is a stand-in: scheduling, RBAC and image pulls of a real cluster are not tested.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.place import Place, cluster, cluster_settings, wait_for
from tests.pipelines import small
from tests.servers import postgres_programs

IMAGE = os.environ.get("ADAPRUNER_VERIFY_IMAGE")
"""A folder with the project and an environment `.venv` with the extras kubernetes and s3."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(IMAGE is None, reason="takes minutes: run `make verify-cluster`"),
    pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="pods need mount namespaces, which root may make"),
]
CHANNELS = 1024
"""Of an MLP: enough that the weights are most of what moves."""
SECONDS = 7200
"""Of one run, on a machine that is busy with other things as well."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    assert IMAGE is not None
    folder = tmp_path_factory.mktemp("cluster")
    base = subprocess.run(
        [f"{IMAGE}/.venv/bin/python", "-c", "import sys; print(sys.base_prefix)"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with cluster(folder, Path(IMAGE), base) as made:
        made.volume.mkdir(parents=True)
        small.write_checkpoint(made.volume / "model", seed=0, channels=CHANNELS)
        for path in (made.volume, *made.volume.rglob("*")):
            path.chmod(0o755)  # pods have another user
        small.write_text(folder / "text.txt", seed=0)
        values = small.config(Path("/data"))
        config = values["parameters"]["config"]
        config["calibration"]["source"] = made.upload(folder / "text.txt", "texts")
        config["search"]["storage"] = f"{made.database}/studies"
        (folder / "run.yaml").write_text(yaml.safe_dump(values | cluster_settings()))
        yield made


def print_moved(requests: list[dict[str, Any]], weights: int) -> None:
    """Prints what each step received from the store and sent to it, as a table."""
    print(f"{'step':28}{'from the store':>16}{'to the store':>16}  (weights: {weights:,} bytes)")
    rows: dict[str, list[int]] = {}
    for request in requests:
        row = rows.setdefault(request["step"], [0, 0])
        row[0] += request["sent"]
        row[1] += request["received"]
    rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    for step, (sent, received) in rows.items():
        print(f"{step:28}{sent:16,}{received:16,}")


def run(place: Place, *arguments: str) -> tuple[int, str, float, list[str]]:
    """Exit code, output, seconds, and the steps that pods ran."""
    before, started = len(place.ended_pods()), time.monotonic()
    with place.compress(*arguments) as process:
        output, _ = process.communicate(timeout=SECONDS)
    seconds = time.monotonic() - started
    wait_for(lambda: any(p["step"] == "orchestrator" for p in place.ended_pods()[before:]), 60)
    steps = [pod["step"] for pod in place.ended_pods()[before:]]
    print(f"exit {process.returncode}, {seconds:.0f} s, {len(steps)} pods\n{output}")
    return process.returncode, output, seconds, steps


def test_a_run_ends_with_its_report_at_home_and_a_second_one_starts_only_what_never_is_cached(
    place: Place,
) -> None:
    code, output, _, steps = run(place)
    assert code == 0, output
    every = small.ALWAYS | small.BEFORE_PRUNING | small.AFTER_PRUNING
    assert sorted(steps) == sorted(every | {"orchestrator"})
    results = place.folder / "runs" / "small"
    report = json.loads((results / "report.json").read_text())
    assert report["metrics"]["pruned"]
    assert not (results / "checkpoint").exists()
    moved, weights = place.requests(), (place.volume / "model/model.safetensors").stat().st_size
    print_moved(moved, weights)
    reads = Counter((r["step"], r["path"]) for r in moved if r["method"] == "GET" and is_large(r))
    assert reads and set(reads.values()) == {1}, reads
    # It needs the tokenizer alone.
    assert sum(r["sent"] for r in moved if r["step"] == "filter_calibration_pool") < weights / 2
    code, output, _, steps = run(place, "--weights")
    print_moved(place.requests()[len(moved) :], weights)
    assert code == 0, output
    assert sorted(steps) == sorted(small.ALWAYS | {"orchestrator"})
    assert (results / "checkpoint" / "config.json").is_file()


def test_a_killed_pod_is_a_failed_command_that_names_the_step_and_its_log(place: Place) -> None:
    started = "estimate_importance"
    with place.compress("--set", "seed=1") as process:
        wait_for(lambda: running_pod(place, started) is not None, SECONDS)
        pod = running_pod(place, started)
        assert pod is not None
        os.killpg(pod, signal.SIGKILL)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert started in error
    assert "kubectl --namespace adapruner logs" in error


def is_large(request: dict[str, Any]) -> bool:
    """Whether the answer is a file of weights or tensors rather than a listing or a setting."""
    return bool(request["sent"] > 50_000)


def running_pod(place: Place, step: str) -> int | None:
    """The process group of the running pod of a step."""
    jobs = [json.loads(f.read_text()) for f in place.pods.glob("jobs-*.json")]
    names = {
        j["metadata"]["name"] for j in jobs if j["metadata"]["labels"].get("step_name") == step
    }
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        script = any(part.endswith("cluster/pod.sh") for part in command)
        if script and any(part.startswith(f"{name}-") for part in command for name in names):
            return os.getpgid(int(entry.name))
    return None
