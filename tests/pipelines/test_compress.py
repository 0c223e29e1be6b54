"""The whole pipeline on real stores: its results, and which steps run again after a change."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from adapruner.temporary import claimed_folder
from steps.zenml_support.workspace import WORK
from tests.adapruner.evaluation.tasks.task_rows import write_rows
from tests.pipelines import small
from tests.pipelines.small import AFTER_PRUNING, ALWAYS, BEFORE_PRUNING
from tests.pipelines.workplace import Result, Workplace, make_workplace

pytestmark = pytest.mark.slow


RECORDER = """
import pathlib, socket
lookups, resolve = pathlib.Path(__file__).with_name("lookups.txt"), socket.getaddrinfo
lookups.touch()

def record(host, *arguments, **options):
    with lookups.open("a") as file:
        file.write(f"{host}\\n")
    return resolve(host, *arguments, **options)

socket.getaddrinfo = record
"""
"""Python imports it at its start, in the run and in every process of it."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    workplace = make_workplace(tmp_path_factory.mktemp("project"))
    (workplace.folder / "sitecustomize.py").write_text(RECORDER)
    return workplace


@pytest.fixture(scope="module")
def first(work: Workplace) -> Result:
    result = work.compress()
    assert result.code == 0, result.err
    return result


def test_a_run_writes_report_plan_and_checkpoint(work: Workplace, first: Result) -> None:
    assert first.ran == ALWAYS | BEFORE_PRUNING | AFTER_PRUNING
    names = {path.name for path in work.results.iterdir()}
    assert {"report.json", "report.html", "plan.json", "checkpoint"} <= names
    assert "timing.json" not in {path.name for path in work.results.rglob("*")}
    report = work.report()
    assert report["params"]["pruned"] < report["params"]["dense"]
    assert set(report["metrics"]) == {"dense", "pruned", "finetuned"}
    untimed = {"select_test_texts", "export", "report"}
    assert set(report["timings_s"]) >= (BEFORE_PRUNING | AFTER_PRUNING) - untimed
    hashes = {"source", "texts", "pool", "table", "plan", "checkpoint"}
    assert set(report["provenance"]["hashes"]) >= hashes
    assert "runs/small/report.html" in first.out
    assert "models:/small-pruned/1 @candidate" in first.out
    weights = work.results / "checkpoint" / "model.safetensors"
    assert weights.stat().st_nlink > 1
    assert not list((work.home / "artifacts" / ".adapruner-work").iterdir())


def test_a_first_run_says_what_it_takes(first: Result) -> None:
    (line,) = re.findall(r"^Without cached steps it takes .*$", first.out, re.MULTILINE)
    assert re.search(r"about [\d.]+ .*, [\d.]+ .B of memory and [\d.]+ .B of disk;", line), line


def test_a_run_looks_up_no_host(work: Workplace, first: Result) -> None:
    assert (work.folder / "lookups.txt").read_text() == ""


def test_the_run_is_in_mlflow_with_one_child_run_a_step(work: Workplace, first: Result) -> None:
    client = MlflowClient(f"sqlite:///{work.home / 'mlflow.db'}")
    version = client.get_model_version_by_alias("small-pruned", "candidate")
    report = work.report()
    hashes = report["provenance"]["hashes"]
    assert version.tags["checkpoint_hash"] == hashes["checkpoint"]
    assert version.tags["source_hash"] == hashes["source"]
    assert float(version.tags["ratio.requested"]) == 0.2
    assert float(version.tags["ratio.achieved"]) == report["ratio"]["achieved"]
    assert float(version.tags["finetuned.text_ppl_seq16"]) > 1
    assert version.tags["gate"] == "none"

    parent = client.get_run(version.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["config_hash"] == version.tags["config_hash"]
    assert parent.data.params["pruning.ratio"] == "0.2"
    assert parent.data.metrics["pruned.text_ppl_seq16"] > 1
    logged = {file.path for file in client.list_artifacts(version.run_id)}
    assert {"report.json", "report.html", "plan.json", "trials.json", "checkpoint"} <= logged
    query = f"tags.mlflow.parentRunId = '{version.run_id}'"
    children = client.search_runs([parent.info.experiment_id], query)
    assert {c.info.run_name for c in children} == (ALWAYS | BEFORE_PRUNING | AFTER_PRUNING) - {
        "register"
    }
    assert all(c.data.metrics["cached"] == 0 for c in children)


def test_a_failed_gate_repeats_no_measurement_and_leaves_the_alias(
    work: Workplace, first: Result
) -> None:
    result = work.compress("--set", "evaluation.gate.perplexity_ratio=0.01")
    assert result.code == 0, result.err
    # A measurement does not depend on the limits of the gate.
    assert result.cached >= {"filter_calibration_pool", "measure_efficiency", "compare_behaviour"}
    assert "The gate failed" in result.out + result.err
    assert "gate FAILED" in result.out and "(no alias)" in result.out
    report = work.report()
    assert report["gate"]["passed"] is False
    client = MlflowClient(f"sqlite:///{work.home / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'small-pruned'")
    newest = max(versions, key=lambda version: int(version.version))
    assert newest.tags["gate"] == "failed"
    assert "at most 0.010" in newest.tags["gate_reasons"]
    candidate = client.get_model_version_by_alias("small-pruned", "candidate")
    assert int(candidate.version) < int(newest.version)
    gate = work.python("-m", "pipelines.cli", "gate", "runs/small")
    assert gate.code == 3, gate.err
    query = "SELECT uri FROM artifact_visualization WHERE uri LIKE '%.html'"
    (database,) = work.home.rglob("zenml.db")
    with sqlite3.connect(database) as connection:
        pages = [Path(uri) for (uri,) in connection.execute(query)]
    assert any("Gate failed" in page.read_text() for page in pages)


def test_another_ratio_keeps_importance_and_a_deleted_artifact_is_computed_again(
    work: Workplace, first: Result
) -> None:
    shutil.rmtree(work.home / "artifacts" / "evaluate_dense")
    result = work.compress("--set", "pruning.ratio=0.4")
    assert result.code == 0, result.err
    assert result.cached >= BEFORE_PRUNING - {"evaluate_dense"}
    assert {"evaluate_dense", "search", "prune", "finetune"} <= result.ran
    assert "its step runs again" in result.out + result.err
    assert "models:/small-pruned/3 @candidate" in result.out


def test_an_edited_library_file_repeats_its_step_and_those_after_it(
    work: Workplace, first: Result
) -> None:
    library = work.folder / "adapruner" / "recovery" / "lora.py"
    library.write_text(library.read_text() + "\n# edited\n")
    result = work.compress()
    assert result.code == 0, result.err
    assert "finetune" in result.ran
    unaffected = {"search", "prune", "evaluate_pruned", "measure_efficiency"}
    assert result.cached >= BEFORE_PRUNING | unaffected


def test_zenml_runs_the_same_file_and_a_changed_text_repeats_the_steps_from_the_pool(
    work: Workplace, first: Result
) -> None:
    small.write_text(work.folder / "text.txt", seed=1)
    zenml = Path(sys.executable).with_name("zenml")
    environment = {
        "ZENML_CONFIG_PATH": str(work.home / "zenml"),
        "ADAPRUNER_HOME": str(work.home),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_COLORS_DISABLED": "true",
    }
    assert work.python(str(zenml), "init", **environment).code == 0
    result = work.python(
        str(zenml),
        "pipeline",
        "run",
        "pipelines.compress.compress",
        "-c",
        "run.yaml",
        "--stack",
        "adapruner",
        **environment,
    )
    assert result.code == 0, result.err
    assert "load_model" in result.cached
    rerun = {"filter_calibration_pool", "estimate_importance", "search", "evaluate_dense"}
    assert rerun <= result.ran


def test_a_registered_version_is_a_source(work: Workplace, first: Result) -> None:
    result = work.compress("--set", "model.source=models:/small-pruned/1")
    assert result.code == 0, result.err
    assert {"load_model", "estimate_importance", "prune"} <= result.ran
    report = work.report()
    assert report["provenance"]["source"]["uri"] == "models:/small-pruned/1"
    assert report["provenance"]["source"]["revision"] == "small-pruned/1"


def test_the_dense_model_is_evaluated_once_for_the_same_tests(
    work: Workplace, first: Result
) -> None:
    small.write_text(work.folder / "held.txt", seed=9)
    write_rows(work.folder / "data")
    tests = {"texts": "{held: held.txt}", "tasks": "[piqa]", "data_dir": "data"}
    common = [w for k, v in tests.items() for w in ("--set", f"evaluation.{k}={v}")]
    result = work.compress(*common)
    assert result.code == 0, result.err
    retention = work.report()["retention"]["finetuned"]
    assert retention["tasks"]["piqa"]["rows"] == 2
    assert set(work.report()["metrics"]["dense"]) == {"held_ppl_seq16", "piqa_acc", "piqa_acc_norm"}

    others = {"seed": 1, "calibration.pool_size": 10, "pruning.ratio": 0.3}
    others |= {"evaluation.batch_size": 2, "evaluation.repeats": 3}
    result = work.compress(*common, *(w for k, v in others.items() for w in ("--set", f"{k}={v}")))
    assert result.code == 0, result.err
    assert {"filter_calibration_pool", "estimate_importance", "prune"} <= result.ran
    assert {"load_model", "evaluate_dense"} <= result.cached

    refused = work.compress(*common, "--set", "evaluation.tasks=[piqua]")
    assert refused.code == 2
    assert "did you mean 'piqa'" in refused.err.splitlines()[-1]
    assert "load_model" not in refused.ran | refused.cached


def test_an_error_in_a_step_is_one_line_and_keeps_the_results(
    work: Workplace, first: Result
) -> None:
    before = (work.results / "report.json").read_bytes()
    (work.folder / "few.txt").write_text("too few words\n")
    result = work.compress("--set", f"calibration.source={work.folder / 'few.txt'}")
    assert result.code == 2, result.err
    assert "few.txt" in result.err.splitlines()[-1]
    assert result.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.out + result.err
    assert (work.results / "report.json").read_bytes() == before


CLEANS_AND_REPEATS = """
from pathlib import Path
from pipelines import config_file, local_run
from pipelines.clean import clean

def files(home):
    return {path for path in home.rglob("*") if path.is_file() and "locks" not in path.parts}

if __name__ == "__main__":
    home = Path("home").absolute()
    before = files(home)
    clean(home, older_than_s=0, dry_run=True)
    print("Removed by a dry run:", len(before - files(home)))
    clean(home, older_than_s=0, dry_run=False)
    clean(home, older_than_s=0, dry_run=False)
    local_run.compress(*config_file.read(Path("run.yaml"), ()), home)
"""


def test_clean_keeps_registered_versions_and_a_run_computes_again_what_went(
    work: Workplace, first: Result
) -> None:
    client = MlflowClient(f"sqlite:///{work.home / 'mlflow.db'}")
    newest = max(int(v.version) for v in client.search_model_versions("name = 'small-pruned'"))
    unregistered = client.get_model_version("small-pruned", str(newest))
    client.delete_model_version("small-pruned", str(newest))
    folder = work.home / "artifacts" / WORK
    claim = f"""
from pathlib import Path
from adapruner.temporary import claimed_folder
claimed_folder(Path({str(folder)!r}), 'x~')
"""
    assert work.python("-c", claim).code == 0
    (left,) = folder.iterdir()
    running, lock = claimed_folder(folder, "y~")
    (work.folder / "clean.py").write_text(CLEANS_AND_REPEATS)
    result = work.python("clean.py")
    lock.release()
    assert result.code == 0, result.err
    assert "Removed by a dry run: 0" in result.out
    assert "Would remove" in result.out and "Nothing to remove in" in result.out
    assert (left.exists(), running.is_dir()) == (False, True)
    assert unregistered.source is not None
    assert not Path(unregistered.source.removeprefix("file://")).exists()
    for version in client.search_model_versions("name = 'small-pruned'"):
        uri = client.get_model_version_download_uri(version.name, version.version)
        AutoModelForCausalLM.from_pretrained(uri.removeprefix("file://"))
        assert client.get_run(version.run_id).data.params["name"] == "small"
    assert result.ran >= BEFORE_PRUNING | AFTER_PRUNING
    # Which version it is depends on the text, which other tests replace.
    assert re.search(r"models:/small-pruned/\d+ @candidate", result.out), result.out
    report = work.python("-m", "pipelines.cli", "report", "runs/small")
    assert report.code == 0, report.err
