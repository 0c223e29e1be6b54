"""The evaluation of a checkpoint and its files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig, QualityConfig
from adapruner.data.pool import TestTexts
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import perplexity, windows_of
from adapruner.evaluation.quality import FAILED, evaluate, measure_perplexity
from adapruner.evaluation.results import Evaluation, read_rows
from adapruner.evaluation.tasks.selection import resolve_tasks
from adapruner.models.storage import checkpoint as ckpt
from tests.adapruner.conftest import Workplace
from tests.adapruner.evaluation.tasks.task_files import write_task_files


def evaluated(workplace: Workplace, settings: EvaluationConfig, folder: Path) -> Path:
    """The directory of an evaluation by `settings`."""
    tasks, out = folder / "resolved", folder / "out"
    tasks.mkdir()
    out.mkdir()
    resolve_tasks(settings, tasks)
    texts = TestTexts.read(workplace.pool).texts
    device = workplace.model.device_config
    evaluation = evaluate(workplace.checkpoint, texts, tasks, device, settings.quality, out)
    assert Evaluation.read(out) == evaluation
    return out


def test_an_evaluation_has_size_windows_and_metrics(workplace: Workplace, tmp_path: Path) -> None:
    settings = EvaluationConfig(sequence_length=16, max_windows=4)
    evaluation = Evaluation.read(evaluated(workplace, settings, tmp_path))
    assert list(evaluation.metrics) == ["made_ppl_seq16"]
    assert 1 < evaluation.metrics["made_ppl_seq16"] < math.inf
    assert evaluation.windows == {"made": 4}
    assert evaluation.params == ckpt.inspect(workplace.checkpoint).total_params
    assert evaluation.weight_bytes == ckpt.size_on_disk(workplace.checkpoint)
    assert evaluation.tasks == {} and not (tmp_path / "out" / FAILED).exists()


def test_a_texts_perplexity_is_that_of_its_first_windows(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    words = [i % 60 + 30 for i in range(70)]  # w1 and w2 are special tokens, also within words
    text = " ".join(f"w{word}" for word in words)
    quality = QualityConfig(sequence_length=8, max_windows=5)
    metrics, counts = measure_perplexity(model, tokenizer, {"text": text}, quality)
    windows = windows_of(words, 8, 5)
    assert metrics == {"text_ppl_seq8": perplexity(model, windows)}
    assert counts == {"text": 5}


def test_a_test_text_shorter_than_a_window_is_refused(workplace: Workplace) -> None:
    model = ckpt.load_model(workplace.checkpoint, workplace.model)
    tokenizer = ckpt.load_tokenizer(workplace.checkpoint)
    with pytest.raises(UserError, match="'short' has 2 tokens, a window needs 128") as refused:
        measure_perplexity(model, tokenizer, {"short": "w5 w6"}, QualityConfig())
    assert "evaluation.sequence_length" in str(refused.value)


def test_results_of_tasks_are_written_and_failures_listed(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_task_files(tmp_path / "tasks")
    settings = EvaluationConfig(tasks=("absent", "made"), tasks_dir=str(folder), sequence_length=16)
    out = evaluated(workplace, settings, tmp_path)
    evaluation = Evaluation.read(out)
    assert set(evaluation.metrics) == {"made_ppl_seq16", "made_acc"}
    assert list(evaluation.failed) == ["absent"]
    assert json.loads((out / FAILED).read_text()) == evaluation.failed
    rows = read_rows(out)
    assert list(rows) == ["made"]
    right = sum(row["right"] for row in rows["made"]) / len(rows["made"])
    assert evaluation.tasks["made"].score == pytest.approx(right)


def test_an_infinite_perplexity_survives_the_file(tmp_path: Path) -> None:
    evaluation = Evaluation(
        metrics={"text_ppl_seq8": math.inf},
        tasks={},
        windows={"text": 1},
        sequence_length=8,
        params=1,
        weight_bytes=1,
    )
    evaluation.write(tmp_path)
    assert Evaluation.read(tmp_path) == evaluation
