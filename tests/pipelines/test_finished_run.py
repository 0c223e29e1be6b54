"""A repeated compression: where nothing differs it runs no step, and imports no ZenML."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient

from pipelines import config_file
from pipelines.finished_run import FinishedRun, code_hash, unchanged_since
from tests.adapruner.evaluation.tasks.task_files import write_task_files
from tests.pipelines.small import AFTER_PRUNING, ALWAYS, BEFORE_PRUNING
from tests.pipelines.workplace import Result, Workplace, make_workplace

pytestmark = pytest.mark.slow

DECIDES = """
import sys
from pathlib import Path
from pipelines import config_file, finished_run, stack
stack.use_home(Path("home"))
content = config_file.read(Path("run.yaml"), ())
assert finished_run.unchanged_since(*content, Path("home"), finished_run.code_hash())
print("imported:", *(name for name in ("zenml", "transformers", "lm_eval") if name in sys.modules))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    workplace = make_workplace(tmp_path_factory.mktemp("project"))
    result = workplace.compress()
    assert result.code == 0, result.err
    return workplace


@pytest.fixture(autouse=True)
def in_workplace(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process decides as one that `Workplace.compress` starts: in its folder, one thread."""
    monkeypatch.chdir(work.folder)
    monkeypatch.setenv("ADAPRUNER_HOME", str(work.home))
    threads, uri = torch.get_num_threads(), mlflow.get_tracking_uri()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    mlflow.set_tracking_uri(uri)


def is_unchanged(*overrides: str, code: str | None = None) -> bool:
    content = config_file.read(Path("run.yaml"), overrides)
    since = unchanged_since(*content, Path("home"), code or code_hash())
    return since is not None


def compress(work: Workplace, *overrides: str) -> Result:
    return work.compress(*(word for override in overrides for word in ("--set", override)))


def registry(work: Workplace) -> MlflowClient:
    return MlflowClient(f"sqlite:///{work.home / 'mlflow.db'}")


def test_a_repeated_run_runs_no_step_and_shows_the_results(work: Workplace) -> None:
    again = work.compress()
    assert again.code == 0, again.err
    assert again.ran == again.cached == set()
    assert "Nothing has changed since the run of 20" in again.out
    assert "Without cached steps" not in again.out
    assert "models:/small-pruned/1 @candidate" in again.out
    assert "runs/small/report.html" in again.out


def test_the_decision_imports_nothing_that_steps_need(work: Workplace) -> None:
    result = work.python("-c", DECIDES)
    assert result.code == 0, result.err
    assert result.out == "imported:\n"


def test_any_change_of_what_a_run_reads_is_noticed(work: Workplace) -> None:
    assert is_unchanged()
    assert not is_unchanged("seed=1")
    assert not is_unchanged("name=other")
    assert not is_unchanged(code="edited")
    for name in ("text.txt", "model/config.json", "run.yaml"):
        file = work.folder / name
        before = file.read_bytes()
        file.write_bytes(before + (b"enable_cache: false\n" if name == "run.yaml" else b"\n"))
        assert not is_unchanged(), name
        file.write_bytes(before)
        assert is_unchanged(), name


def test_another_mlflow_and_other_hardware_are_noticed(
    work: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    assert not is_unchanged(), "speeds are measured with all threads"
    torch.set_num_threads(1)
    assert is_unchanged()
    shutil.copy(work.home / "mlflow.db", tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert not is_unchanged()


def test_damaged_results_are_written_again_from_cached_steps(work: Workplace) -> None:
    (work.results / "plan.json").unlink()
    registry(work).delete_registered_model_alias("small-pruned", "candidate")
    again = work.compress()
    assert again.code == 0, again.err
    assert (again.ran, again.cached) == (ALWAYS, BEFORE_PRUNING | AFTER_PRUNING)
    assert (work.results / "plan.json").is_file()
    version = registry(work).get_model_version_by_alias("small-pruned", "candidate")
    assert int(version.version) == 1, "the same checkpoint is the same version"
    assert is_unchanged()


def test_a_version_that_is_not_as_it_was_is_noticed(work: Workplace) -> None:
    client = registry(work)
    client.delete_registered_model_alias("small-pruned", "candidate")
    assert not is_unchanged()
    client.set_registered_model_alias("small-pruned", "candidate", "1")
    assert is_unchanged()
    version = client.get_model_version("small-pruned", "1")
    for tag, value in (("checkpoint_hash", "of another"), ("gate", "failed")):
        client.set_model_version_tag("small-pruned", "1", tag, value)
        assert not is_unchanged(), tag
        client.set_model_version_tag("small-pruned", "1", tag, version.tags[tag])
        assert is_unchanged(), tag
    folder = Path((version.source or "").removeprefix("file://"))
    folder.rename(folder.with_name("moved"))
    assert not is_unchanged()
    folder.with_name("moved").rename(folder)
    assert is_unchanged()


def test_a_damaged_record_and_one_of_yesterday_count_as_none(work: Workplace) -> None:
    (file,) = work.home.rglob(FinishedRun.FILE)
    before = file.read_text()
    record = json.loads(before)
    yesterday = datetime.fromisoformat(record["ended"]) - timedelta(days=1)
    for text in ("{", "{}", json.dumps(record | {"ended": yesterday.isoformat()})):
        file.write_text(text)
        assert not is_unchanged()
    file.write_text(before)
    assert is_unchanged()


def test_a_run_with_a_failed_task_is_not_recorded_and_one_with_a_failed_gate_is(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_task_files(work.folder / "tasks")
    short = ("finetune.method=none", "evaluation.speed=false", "evaluation.behaviour_windows=0")
    common = ("name=tasks", f"evaluation.tasks_dir={folder}", *short)
    records = {*work.home.rglob(FinishedRun.FILE)}
    tried_again = (*common, "evaluation.tasks=[absent, made]")
    assert compress(work, *tried_again).code == 0
    assert {*work.home.rglob(FinishedRun.FILE)} == records
    failed = (*common, "evaluation.tasks=[made]", "evaluation.gate.perplexity_ratio=0.01")
    result = compress(work, *failed)
    assert result.code == 0, result.err
    assert "(no alias)" in result.out
    assert is_unchanged(*failed)
    for file in folder.rglob("*.yaml"):
        file.write_text(file.read_text() + "\n")
    assert not is_unchanged(*failed), "the definition of a task"
