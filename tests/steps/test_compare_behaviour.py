from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig
from adapruner.evaluation.results import Behaviour
from adapruner.recovery.results import RecoveryResult
from steps.compare_behaviour import compare_behaviour
from tests.adapruner.conftest import Workplace

CONFIG = EvaluationConfig(
    sequence_length=16, max_windows=4, behaviour_windows=2, prompts=["w5 w6 w7"]
)


@pytest.mark.parametrize(
    ("recovery", "is_compared"),
    [
        (RecoveryResult(method="none"), False),
        (RecoveryResult(method="lora", loss="text", examples=1), True),
    ],
)
def test_the_finetuned_model_is_compared_only_where_there_is_one(
    workplace: Workplace, stages_folder: Path, recovery: RecoveryResult, is_compared: bool
) -> None:
    finetuned = stages_folder / "finetuned"
    finetuned.mkdir()
    recovery.write(finetuned)
    (finetuned / "checkpoint").symlink_to(workplace.checkpoint)
    dense = workplace.checkpoint
    out = compare_behaviour.entrypoint(
        dense, dense, finetuned, workplace.pool, workplace.model, CONFIG
    )
    compared = Behaviour.read(out).texts["made"].model_dump()
    assert compared["pruned"]["agreement"] == 1
    assert ("finetuned" in compared) == is_compared
