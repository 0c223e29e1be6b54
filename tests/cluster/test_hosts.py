"""Three hosts that compress the versions of one registry: `make verify-cluster`.

A host is a process with a host name and process numbers of its own, so that the others can't see
whether it lives; its home and its results are its own as well. They share an MLflow server on
PostgreSQL and the text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.runs import needs_cluster
from tests.pipelines.recompress.registry import Registry
from tests.servers import mlflow_server, postgres

pytestmark = needs_cluster
ROOT = Path(__file__).parents[2]
VERSIONS, HOSTS, EXPIRY_S = 10, ("one", "two", "three"), 60
KILLED_IN = "prune"

Event = dict[str, Any]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with (
        postgres("mlflow") as database,
        mlflow_server(tmp_path, f"{database}/mlflow", {}) as server,
    ):
        yield Registry(tmp_path / "registry", server)


class RecompressHost:
    """`adapruner recompress` on a host; `watch` sees each of its events, with the process."""

    def __init__(
        self, name: str, registry: Registry, watch: Callable[[Event, Any], None] | None = None
    ) -> None:
        self.name, self.events = name, list[Event]()
        folder = registry.folder / name
        folder.mkdir(exist_ok=True)
        values = yaml.safe_load(registry.plan("base", lock_expiry=f"{EXPIRY_S}s").read_text())
        values["parameters"]["config"]["output_dir"] = "runs"
        (folder / "base.yaml").write_text(yaml.safe_dump(values))
        script = f'hostname {name}; exec "$@"'
        pass_ = [sys.executable, "-m", "pipelines.cli", "recompress", "-c", "base.yaml"]
        namespaces = ["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.process = subprocess.Popen(
            ["unshare", *namespaces, "bash", "-c", script, "bash", *pass_, "--home", "home"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "MLFLOW_"))},
                "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": registry.uri,
                "OMP_NUM_THREADS": "1", "HOME": str(folder),
            },
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, args=(watch,))
        self._thread.start()

    def _read(self, watch: Callable[[Event, Any], None] | None) -> None:
        for line in self.process.stdout or ():
            self.events.append(json.loads(line))
            if watch is not None:
                watch(self.events[-1], self.process)

    def wait(self) -> int:
        self._thread.join()
        return self.process.wait()

    def compressed(self) -> list[str]:
        return [e["version"] for e in self.events if e["event"] == "compressed"]


def kill(event: Event, process: Any) -> None:
    if event.get("step") == KILLED_IN and event.get("state") == "started":
        process.kill()


def test_ten_versions_are_compressed_once_by_three_hosts_of_which_one_is_killed(
    registry: Registry,
) -> None:
    versions = [str(registry.push("base", seed).version) for seed in range(VERSIONS)]
    started = time.monotonic()
    killed, *others = [
        RecompressHost(name, registry, kill if name == HOSTS[0] else None) for name in HOSTS
    ]
    codes = [host.wait() for host in (killed, *others)]
    print(f"{time.monotonic() - started:.0f} s: {codes}")
    lost = killed.events[-1]["version"]
    assert codes == [-9, 0, 0]
    assert killed.compressed() == []
    # The version of the dead host is free once its lock expired; the next pass of a host takes it.
    time.sleep(EXPIRY_S)
    others.append(RecompressHost(HOSTS[1], registry))
    assert others[-1].wait() == 0
    done_by = [(host.name, host.compressed()) for host in others]
    print(done_by, f"killed with version {lost}")
    done = Counter(version for host in others for version in host.compressed())
    assert done == Counter(versions)
    assert all(host.compressed() for host in others[:2])
    made = registry.versions("base-small")
    assert Counter(version.tags["source_version"] for version in made) == Counter(versions)
    assert not registry.has_locks()
