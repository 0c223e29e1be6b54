"""A comparison on real stores that is killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines import small
from tests.pipelines.small import BEFORE_PRUNING
from tests.pipelines.workplace import Result, Workplace, make_workplace

pytestmark = pytest.mark.slow

COMPARISON = {
    "methods": ["fisher", "flap", "llm-pruner-element1", "adapruner"],
    "ratios": [0.2, 0.9],
    "layouts": ["uniform"],
    "seeds": [0, 1],
}
AT = {ratio: ratio.replace(".", "_") + "_uniform_" for ratio in ("0.2", "0.9")}
SEEDS = {"fisher": "0", "flap": "0", "llm_pruner_element1": "01", "adapruner": "01"}
CELLS = {
    f"{method}_{at}{seed}"
    for at in AT.values()
    for method, seeds in SEEDS.items()
    for seed in seeds
}
SHARED = BEFORE_PRUNING
UNUSED = "no_gram_matrices"
"""The step that stands for the matrices where a method does not use them."""
ALWAYS = {"describe_hardware", "resolve_source", "compare_candidates"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("project")
    values = small.config(folder)
    values["parameters"]["config"]["search"]["trials"] = 5
    values["parameters"]["comparison"] = COMPARISON
    return make_workplace(folder, values)


def start(work: Workplace, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.cli", "compare", "-c", "run.yaml", "--home", "home"]
    environment = {**os.environ, "PYTHONPATH": str(work.folder), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        return subprocess.Popen(
            [*command, *arguments], cwd=work.folder, env=environment, stdout=out, stderr=out
        )


def finished_steps(log: Path) -> set[str]:
    return Result(0, log.read_text(), "").ran


def compare(work: Workplace, *arguments: str) -> Result:
    """A comparison that runs to its end; its output is in `out`."""
    log = work.folder / "log"
    code = start(work, log, *arguments).wait(timeout=900)
    return Result(code, log.read_text(), "")


@pytest.fixture(scope="module")
def finished_before(work: Workplace) -> set[str]:
    """Steps that had finished when the first run was killed."""
    log = work.folder / "killed.log"
    killed = start(work, log)
    deadline = time.monotonic() + 900
    while len(finished_steps(log) & CELLS) < 3 and time.monotonic() < deadline:
        assert killed.poll() is None, log.read_text()
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not work.results.exists()
    return finished_steps(log)


@pytest.fixture(scope="module")
def resumed(work: Workplace, finished_before: set[str]) -> Result:
    again = compare(work)
    assert again.code == 0, again.out
    return again


def test_a_killed_comparison_is_resumed_after_the_last_finished_candidate(
    finished_before: set[str], resumed: Result
) -> None:
    assert 3 <= len(finished_before & CELLS) < len(CELLS)
    assert resumed.cached >= finished_before - ALWAYS
    assert resumed.cached | resumed.ran == (
        CELLS | SHARED | ALWAYS | {"redraw_reference_subset_1", UNUSED}
    )
    assert not resumed.cached & resumed.ran


def test_a_comparison_writes_one_table_and_no_weights(work: Workplace, resumed: Result) -> None:
    names = {path.name for path in work.results.iterdir()}
    assert names == {f"comparison.{kind}" for kind in ("json", "md", "svg", "png")}
    content = json.loads((work.results / "comparison.json").read_text())
    rows = {(row["ratio"], row["method"]): row for row in content["rows"]}
    assert set(rows) == {(r, m) for r in COMPARISON["ratios"] for m in COMPARISON["methods"]}
    dense = content["dense"]["text_ppl_seq16"]
    for (ratio, method), row in rows.items():
        assert row["seeds"] == ([0, 1] if method in ("adapruner", "llm-pruner-element1") else [0])
        if ratio == 0.9:
            assert "can't be reached" in row["reason"]
            assert row["pruned"] is None
            continue
        stat = row["pruned"]["text_ppl_seq16"]
        assert stat["to_dense"] == pytest.approx(stat["mean"] / dense)
        assert stat["min"] <= stat["mean"] <= stat["max"]
        assert (stat["spread"] is None) == (len(row["seeds"]) == 1)
        assert row["seconds"]["search"] > 0
        assert row["achieved_blocks"] == pytest.approx(0.2, abs=0.02)
    # FLAP's biases are counted: two for each of the kept channels, and the hidden size, a layer.
    assert rows[0.2, "flap"]["params"] > rows[0.2, "fisher"]["params"]
    assert set(content["shared_s"]) == SHARED - {"select_test_texts"}

    assert "not reachable" in (work.results / "comparison.md").read_text()
    for text in ("llm-pruner-element1", "not reachable", "runs/small/comparison.md"):
        assert text in resumed.out
    kept = [path.parts for path in (work.home / "artifacts").rglob("model.safetensors")]
    assert kept
    assert all("load_model" in parts for parts in kept)


def test_the_comparison_is_an_mlflow_run(work: Workplace, resumed: Result) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{work.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("adapruner")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'comparison'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["pruned.0.2.uniform.fisher.text_ppl_seq16_to_dense"] > 0
    assert run.data.metrics["dense.text_ppl_seq16"] > 1
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {f"comparison.{kind}" for kind in ("json", "md", "svg", "png")}


def test_a_comparison_on_a_stack_brings_its_tables_home(work: Workplace, resumed: Result) -> None:
    before = (work.results / "comparison.json").read_bytes()
    shutil.rmtree(work.results)
    result = work.python(
        "-m", "pipelines.cli", "compare", "-c", "run.yaml", "--stack", "adapruner",
        ADAPRUNER_HOME=str(work.home),
        ZENML_CONFIG_PATH=str(work.home / "zenml"),
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.cached >= CELLS
    assert "compare_candidates  completed" in result.out
    assert (work.results / "comparison.json").read_bytes() == before


def test_another_method_repeats_no_candidate(work: Workplace, resumed: Result) -> None:
    wider = compare(
        work, "--set", "comparison.methods=[fisher, random]", "--set", "comparison.ratios=[0.2]"
    )
    assert wider.code == 0, wider.out
    assert wider.ran == ALWAYS | {f"random_{AT['0.2']}{seed}" for seed in (0, 1)}
    shared = SHARED - {"compute_gram_matrices"} | {UNUSED}
    assert wider.cached == shared | {f"fisher_{AT['0.2']}0"}
