"""Passes that are killed, run at the same time, or meet faults: on real stores."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from pipelines.recompress.config import RecompressFile
from pipelines.recompress.status import rows
from tests.pipelines.recompress.forks import ROOT, Host
from tests.pipelines.recompress.registry import Registry

pytestmark = pytest.mark.slow

# In the order in which they run.
STEPS = (
    "describe_hardware",
    "resolve_source",
    "load_model",
    "filter_calibration_pool",
    "measure_latency",
    "compute_gram_matrices",
    "compute_teacher_logits",
    "estimate_importance",
    "select_test_texts",
    "evaluate_dense",
    "search",
    "prune",
    "evaluate_pruned",
    "finetune",
    "measure_efficiency",
    "compare_behaviour",
    "evaluate_finetuned",
    "export",
    "measure_recovery",
    "report",
    "register",
)
KILLED_IN = (
    "resolve_source",
    "load_model",
    "estimate_importance",
    "search",
    "finetune",
    "measure_recovery",
    "register",
)
"""At the beginning, after steps with large and small results, and at the end."""

ALWAYS = {"describe_hardware", "resolve_source", "register"}
KILLED = -9


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def host(registry: Registry) -> Iterator[Host]:
    host = Host(registry.home)
    yield host
    host.close()


def test_a_pass_killed_in_a_step_is_resumed_without_repeating_finished_steps(
    registry: Registry, host: Host
) -> None:
    registry.push("killed", 0)
    path = registry.plan("killed", retry={"attempts": 100, "backoff": "1h"})
    finished: set[str] = set()
    events = [f'"step": "{step}", "state": "started"' for step in KILLED_IN]
    for at in [*events, '"event": "compressed"']:
        result = host.run(path, at=at)
        assert result.code == KILLED, at
        again = set(result.steps("finished")) & finished
        assert again <= ALWAYS, at
        finished |= set(result.steps("finished"))
        (row,) = rows(RecompressFile(path), registry.home)
        assert row["state"] == ("done" if registry.versions("killed-small") else "dead"), at
    assert finished == set(STEPS)

    last = host.run(path)
    assert last.code == 0
    assert last.versions("skipped") == ["1"]
    assert not last.steps("started")
    (compressed,) = registry.versions("killed-small")
    (source,) = registry.versions("killed")
    pointers = [v for k, v in source.tags.items() if k.startswith("adapruner.compressed.")]
    assert pointers == ["models:/killed-small/1"]
    assert (compressed.tags["source_name"], compressed.tags["source_version"]) == ("killed", "1")
    champion = registry.client.get_model_version_by_alias("killed-small", "champion")
    assert str(champion.version) == "1"
    assert not registry.has_locks()


def test_deleted_corrupt_repaired_and_overwritten_versions_leave_the_others_alone(
    registry: Registry, host: Host
) -> None:
    deleted, corrupt, good = (registry.push("mixed", seed) for seed in range(3))
    weights = registry.files(corrupt) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    path = registry.plan("mixed")

    first = host.run(path, at='"event": "started"', then=["delete", "mixed", str(deleted.version)])
    assert first.code == 4
    assert first.versions("compressed") == [str(good.version)]
    (failed,) = first.of("failed")
    assert failed["version"] == str(corrupt.version)
    assert len(failed["reason"]) <= 500
    (skipped,) = first.of("skipped")
    assert (skipped["version"], skipped["why"]) == (str(deleted.version), "deleted")

    second = host.run(path)
    assert second.code == 0
    whys = {content["version"]: content["why"] for content in second.of("skipped")}
    assert whys == {str(corrupt.version): "waiting", str(good.version): "done"}
    assert not second.of("started")

    registry.overwrite(corrupt, seed=5)
    registry.overwrite(good, seed=6)
    third = host.run(path)
    assert third.code == 4
    assert third.versions("compressed") == [str(corrupt.version)]
    changes = {content["version"]: content for content in third.of("changed")}
    assert changes[str(good.version)]["refused"]
    assert changes[str(good.version)]["was"] != changes[str(good.version)]["now"]
    assert len(registry.versions("mixed-small")) == 2

    fourth = host.run(registry.plan("mixed", on_change="compress"))
    assert fourth.code == 0
    assert fourth.versions("compressed") == [str(good.version)]
    newest = registry.versions("mixed-small")[-1]
    assert newest.tags["source_hash"] == changes[str(good.version)]["now"]
    check_champion_is_a_plain_model(registry, "mixed-small")


def check_champion_is_a_plain_model(registry: Registry, name: str) -> None:
    import mlflow
    from transformers import AutoModelForCausalLM

    mlflow.set_tracking_uri(registry.uri)
    to = registry.folder / f"{name}-champion"
    to.mkdir()
    folder = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(to))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.intermediate_size < 64


def test_two_passes_share_the_jobs_and_a_third_in_the_same_home_stops(
    registry: Registry, host: Host
) -> None:
    versions = {str(registry.push("shared", seed).version) for seed in range(3)}
    path = registry.plan("shared")
    other = {
        "home": str(registry.folder / "elsewhere"),
        "env": {"MLFLOW_TRACKING_URI": registry.uri},
    }
    started = [host.start(path), host.start(path, **other), host.start(path, **other)]
    results = [host.wait(each) for each in started]
    assert all(each.code in (0, 5) for each in results)
    stopped = [content["reason"] for each in results[1:] for content in each.of("stopped")]
    assert any("another pass" in reason for reason in stopped)
    done = [version for each in results for version in each.versions("compressed")]
    assert sorted(done) == sorted(versions)
    compressed = registry.versions("shared-small")
    assert {version.tags["source_version"] for version in compressed} == versions
    assert len(compressed) == len(versions)


def test_a_stop_puts_the_version_back_and_leaves_no_lock(registry: Registry, host: Host) -> None:
    registry.push("stopped", 0)
    result = host.run(registry.plan("stopped"), at='"step": "prune"', then=["stop"])
    assert result.code == 143
    (source,) = registry.versions("stopped")
    (record,) = [json.loads(v) for k, v in source.tags.items() if ".state." in k]
    assert (record["state"], record["attempts"]) == ("put_back", 0)
    assert not registry.has_locks()


@contextmanager
def server(registry: Registry, port: int) -> Iterator[int]:
    """An MLflow server over the registry's database; its process group."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", registry.uri,
         "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--artifacts-destination", str(registry.folder / "served")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_registry_that_does_not_answer_ends_the_pass_and_loses_nothing(
    registry: Registry, host: Host
) -> None:
    registry.push("served", 0)
    path = registry.plan("served", lock_expiry="2s")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    down = host.run(path, env=env)
    assert down.code == 5
    assert "does not answer" in down.of("stopped")[0]["reason"]
    with server(registry, port) as pid:
        middle = host.run(path, env=env, at='"step": "prune"', then=["kill_group", str(pid)])
    assert middle.code == 5
    assert not middle.of("failed")
    with server(registry, port):
        after = host.run(path, env=env)
    assert after.code == 0
    assert after.versions("compressed") == ["1"]
    assert not set(after.steps("finished")) & set(middle.steps("finished")) - ALWAYS
    assert len(registry.versions("served-small")) == 1


def test_a_full_disk_ends_the_pass_and_counts_no_attempt(registry: Registry, host: Host) -> None:
    folder = registry.folder
    (folder / "few").mkdir()
    mounted = ["unshare", "-rm", "sh", "-c"]
    mounted += ['mount -t tmpfs -o size=13m none few && exec "$@"', "sh"]
    if subprocess.run([*mounted, "true"], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("this system allows no mount namespaces")
    registry.push("large", 0, wide=True)
    path = registry.plan("large")
    result = subprocess.run(
        [*mounted, sys.executable, "-m", "pipelines.cli", "recompress", "-c", str(path),
         "--home", "few"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": registry.uri},
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"][-1] == "prune"
    assert "the disk is full" in next(e for e in events if e["event"] == "stopped")["reason"]
    assert not registry.versions("large-small")
    again = host.run(path)
    assert again.code == 0
    assert again.of("started")[0]["attempt"] == 1
    assert again.versions("compressed") == ["1"]
