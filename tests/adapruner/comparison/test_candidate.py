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
from adapruner.comparison.table import build, markdown
from adapruner.config import RunConfig
from adapruner.config.parsing import parse_section
from adapruner.evaluation.tasks.selection import resolve_tasks
from adapruner.recovery.training.teacher_logits import compute_teacher_logits
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


def test_a_method_with_a_layout_of_its_own_removes_nothing(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    comparison = ComparisonConfig(methods=("ast", "magnitude"), ratios=(0.2,), finetune=True)
    run = config(workplace)
    _, last = cells(run, comparison)
    teacher = candidate_config(last, run, comparison).finetune.teacher
    compute_teacher_logits(workplace.checkpoint, workplace.pool, workplace.model, teacher, tmp_path)
    outs = measured(workplace, table, comparison, tmp_path)
    cut, sparse = map(CandidateResult.read, outs)
    assert sparse.params and cut.params and cut.params < sparse.params
    assert (sparse.achieved_all, sparse.achieved_blocks, sparse.zeros) == (0, 0, 15_360)
    assert cut.zeros == 0
    assert sparse.pruned and sparse.finetuned and sparse.finetuned != sparse.pruned
    text = markdown(build(run, comparison, {METRIC: 10.0}, outs, {}))
    assert "## 20 % of the decoder blocks' parameters removed, layout per_layer" in text
    assert "## no parameters removed, 2 of 4 weights of every projection zero" in text
    assert "ast removes no parameters: 15.4 k of them are zero" in text
    assert "50 %" not in text


def test_the_mask_alone_is_measured_without_fine_tuning(
    workplace: Workplace, table: Path, tmp_path: Path
) -> None:
    comparison = ComparisonConfig(
        methods=("ast",), ratios=(0.2, 0.5), at_ratio={0.5: {"protect_first": 2}}
    )
    (out,) = measured(workplace, table, comparison, tmp_path)
    result = CandidateResult.read(out)
    assert result.pruned and result.finetuned is None and result.zeros == 15_360


def test_unsupported_method_is_a_reason(workplace: Workplace, tmp_path: Path) -> None:
    small_model("qwen2").save_pretrained(tmp_path / "qwen2")
    comparison = ComparisonConfig(methods=("flap",), ratios=(0.2,))
    other = Workplace(tmp_path / "qwen2", workplace.pool, workplace.model)
    (out,) = measured(other, tmp_path, comparison, tmp_path)
    assert "Qwen2ForCausalLM" in str(CandidateResult.read(out).reason)
