"""Ten versions, three more while it runs, two faults: each outcome, and the seconds of a pass.

    python benchmarks/recompress.py

Models are tiny, stores and processes real. The first pass is killed (-9) in the middle of a
version; another version's weights are cut short, and put right at the end. Prints one line a pass
and a table of the versions, and fails where one was lost or compressed twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.pipelines.recompress.registry import Registry  # noqa: E402

FIRST, LATER, CORRUPT = 10, 3, "4"
KILLED_IN = ("3", "prune")
ALWAYS = {"resolve_source", "report", "register"}
PUSHED_AFTER = 2  # versions compressed in the second pass

Event = dict[str, Any]


def a_pass(registry: Registry, path: Path, watch: Any = None) -> list[Event]:
    """One `adapruner recompress`; `watch(event, process)` sees each event as it is printed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "recompress", "-c", str(path),
         "--home", str(registry.home)],
        cwd=registry.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    events = []
    for line in process.stdout or ():
        events.append(json.loads(line))
        if watch is not None:
            watch(events[-1], process)
    code = process.wait()
    seconds = time.perf_counter() - started
    names = {e["event"] for e in events}
    counts = {name: sum(e["event"] == name for e in events) for name in sorted(names - {"step"})}
    print(f"exit code {code:>3}, {seconds:5.1f} s: {counts}", flush=True)
    return events


def kill(event: Event, process: Any) -> None:
    at = (event.get("version"), event.get("step"))
    if at == KILLED_IN and event.get("state") == "started":
        process.send_signal(signal.SIGKILL)


def main() -> None:
    registry = Registry(Path(tempfile.mkdtemp(prefix="adapruner-")))
    for seed in range(FIRST):
        pushed = registry.push("base", seed)
        if str(pushed.version) == CORRUPT:
            corrupt = pushed
    weights = registry.files(corrupt) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    path = registry.plan("base")
    left = [*range(FIRST, FIRST + LATER)]
    compressed = 0

    def push_more(event: Event, _process: Any) -> None:
        nonlocal compressed
        compressed += event["event"] == "compressed"
        if left and compressed == PUSHED_AFTER:
            while left:
                registry.push("base", left.pop(0))

    passes = [
        a_pass(registry, path, kill),
        a_pass(registry, path, push_more),
        a_pass(registry, path),
    ]
    weights.write_bytes(whole)
    passes += [a_pass(registry, path), a_pass(registry, path)]
    show(registry, passes)


def show(registry: Registry, passes: list[list[Event]]) -> None:
    made: dict[str, list[str]] = {}
    for version in registry.versions("base-small"):
        made.setdefault(version.tags["source_version"], []).append(str(version.version))
    table = Table("version", *(f"pass {i + 1}" for i in range(len(passes))), "compressed as")
    for number in range(1, FIRST + LATER + 1):
        cells = [_cell(events, str(number)) for events in passes]
        table.add_row(str(number), *cells, ", ".join(made.get(str(number), [])))
    Console(width=140).print(table)
    aliases = registry.client.get_registered_model("base-small").aliases
    print("aliases:", {name: int(version) for name, version in aliases.items()})
    assert sorted(map(int, made)) == list(range(1, FIRST + LATER + 1)), "lost"
    assert all(len(versions) == 1 for versions in made.values()), "done twice"
    finished = [
        (e["version"], e["step"]) for p in passes for e in p if e.get("state") == "finished"
    ]
    again = {f for f in finished if finished.count(f) > 1 and f[1] not in ALWAYS}
    assert not again, again
    print("lost: 0, compressed twice: 0, finished steps done again: 0")


def _cell(events: list[Event], version: str) -> str:
    mine = [e for e in events if e.get("version") == version]
    names = [e["event"] + (f" ({e['why']})" if "why" in e else "") for e in mine]
    words = [word for word in names if word not in ("step", "started")]
    if not words and mine:
        return f"killed in {mine[-1].get('step')}"
    return ", ".join(words)


if __name__ == "__main__":
    main()
