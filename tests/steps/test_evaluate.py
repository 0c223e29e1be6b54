from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig
from adapruner.evaluation.results import Evaluation
from adapruner.evaluation.tasks.selection import resolve_tasks
from steps.evaluate import evaluate
from tests.adapruner.conftest import Workplace

CONFIG = EvaluationConfig(sequence_length=16, max_windows=4)


@pytest.fixture
def no_tasks(tmp_path: Path) -> Path:
    directory = tmp_path / "tasks"
    directory.mkdir()
    resolve_tasks(CONFIG, directory)
    return directory


def test_a_checkpoint_in_a_folder_of_a_stage_is_evaluated_like_the_checkpoint_alone(
    workplace: Workplace, stages_folder: Path, no_tasks: Path
) -> None:
    finetuned = stages_folder / "finetuned"
    finetuned.mkdir()
    (finetuned / "checkpoint").symlink_to(workplace.checkpoint)
    results = [
        Evaluation.read(
            evaluate.entrypoint(
                checkpoint, workplace.pool, no_tasks, workplace.model.device_config, CONFIG.quality
            )
        )
        for checkpoint in (workplace.checkpoint, finetuned)
    ]
    assert results[0].metrics == results[1].metrics
    assert results[0].metrics["made_ppl_seq16"] > 1
