"""A candidate leaves its numbers and its plan, and no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapruner.comparison.candidate import (
    STAGE_SECONDS,
    CandidateResult,
    SharedStages,
    measure_candidate,
)
from adapruner.comparison.cells import ComparisonConfig, candidate_config, cells
from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from adapruner.evaluation.tasks.selection import resolve_tasks
from adapruner.search.inputs import SearchInputs
from tests.adapruner.conftest import Workplace, write_importance
from tests.models import small_model

METRIC = "made_ppl_seq16"


@pytest.fixture(scope="module")
def table(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table")
    write_importance(workplace, out)
    return out


def config(work: Workplace) -> RunConfig:
    values = {
        "name": "mine", "model": work.model.model_dump(), "calibration": {"source": "t.txt"},
        "search": {"set_size": 4}, "pruning": {"ratio_of": "blocks", "round_to": 4,
        "protect_first": 1, "protect_last": 1}, "registry": {"name": "r"},
        "finetune": {"steps": 2, "batch_size": 2, "sequence_length": 16, "rank": 2},
        "evaluation": {"sequence_length": 16, "max_windows": 6},
    }  # fmt: skip
    return parse_section(RunConfig, values, "f")


def shared(work: Workplace, table: Path, root: Path) -> SharedStages:
    """The pool's folder holds the test texts as well; nothing is distilled, no tasks."""
    tasks = root / "tasks"
    if not tasks.exists():
        tasks.mkdir()
        resolve_tasks(config(work).evaluation, tasks)
    inputs = SearchInputs(work.checkpoint, work.pool, table, table, tasks)
    return SharedStages(inputs, root, work.pool, tasks)


def measured(work: Workplace, table: Path, comparison: ComparisonConfig, root: Path) -> list[Path]:
    """A directory for each cell."""
    outs = []
    for cell in cells(config(work), comparison):
        out = root / cell.key
        out.mkdir()
        settings = candidate_config(cell, config(work), comparison)
        measure_candidate(shared(work, table, root), settings, "sqlite://", out)
        outs.append(out)
    return outs


def test_candidate_leaves_its_numbers_and_its_plan_and_no_weights(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    comparison = ComparisonConfig(methods=("flap",), ratios=(0.2, 0.9), finetune=True)
    reachable, beyond = measured(workplace, table, comparison, tmp_path)
    result = CandidateResult.read(reachable)
    assert result.pruned and result.finetuned
    assert result.pruned[METRIC] > 1
    assert result.finetuned[METRIC] > 1
    assert result.finetuned != result.pruned
    names = {path.name for path in reachable.rglob("*")}
    assert names == {"candidate.json", "stage_seconds.json", "plan.json"}
    seconds = json.loads((reachable / STAGE_SECONDS).read_text())
    assert set(seconds) == {"search", "prune", "finetune", "evaluate"}
    assert "can't be reached" in str(CandidateResult.read(beyond).reason)
    assert {path.name for path in beyond.rglob("*")} == {"candidate.json", "stage_seconds.json"}


def test_unsupported_method_is_a_reason(workplace: Workplace, tmp_path: Path) -> None:
    small_model("qwen2").save_pretrained(tmp_path / "qwen2")
    comparison = ComparisonConfig(methods=("flap",), ratios=(0.2,))
    other = Workplace(tmp_path / "qwen2", workplace.pool, workplace.model)
    (out,) = measured(other, tmp_path, comparison, tmp_path)
    assert "Qwen2ForCausalLM" in str(CandidateResult.read(out).reason)
