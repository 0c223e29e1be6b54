"""The whole pipeline on ZenML's Kubernetes orchestrator: `make verify-cluster`.

Every pod is a process with a root file system of its own, which holds the image and its volumes.
The API server is a stand-in: scheduling, RBAC and image pulls of a real cluster are not tested.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.cluster.place import KUBERNETES, Place, wait_for
from tests.cluster.runs import SECONDS, finished, needs_cluster
from tests.pipelines import small

pytestmark = needs_cluster


def test_a_run_ends_with_its_report_at_home_and_a_second_one_starts_only_what_never_is_cached(
    place: Place,
) -> None:
    every = small.ALWAYS | small.BEFORE_PRUNING | small.AFTER_PRUNING | {"orchestrator"}
    run = finished(place, "compress", KUBERNETES, len(every))
    assert run.code == 0, run.output
    assert sorted(run.steps) == sorted(every)
    results = place.folder / "runs" / KUBERNETES
    report = json.loads((results / "report.json").read_text())
    assert report["metrics"]["pruned"]
    assert not (results / "checkpoint").exists()
    reads = run.reads(place.weights // 4)
    assert reads and set(reads.values()) == {1}, reads
    assert run.sent("filter_calibration_pool") < place.weights / 4  # it needs the tokenizer
    again = small.ALWAYS | {"orchestrator"}
    run = finished(place, "compress", KUBERNETES, len(again), "--weights")
    assert run.code == 0, run.output
    assert sorted(run.steps) == sorted(again)
    assert (results / "checkpoint" / "config.json").is_file()


def test_a_comparison_ends_with_its_tables_at_home(place: Place) -> None:
    candidates = {"fisher_0_2_uniform_0", "flap_0_2_uniform_0"}
    expected = candidates | {"describe_hardware", "resolve_source", "compare_candidates"}
    run = finished(place, "compare", KUBERNETES, len(expected) + 1)
    assert run.code == 0, run.output
    assert expected <= set(run.steps)
    tables = json.loads((place.folder / "runs" / "comparison" / "comparison.json").read_text())
    assert {row["method"] for row in tables["rows"]} == {"fisher", "flap"}


def test_a_killed_pod_is_a_failed_command_that_names_the_step_and_its_log(place: Place) -> None:
    started = "estimate_importance"
    with place.adapruner("compress", KUBERNETES, "--set", "seed=1") as process:
        wait_for(lambda: running_pod(place, started) is not None, SECONDS)
        pod = running_pod(place, started)
        assert pod is not None
        os.killpg(pod, signal.SIGKILL)
        output, _ = process.communicate(timeout=SECONDS)
    print(output)
    assert process.returncode == 1, output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert started in error
    assert "kubectl --namespace adapruner logs" in error


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
