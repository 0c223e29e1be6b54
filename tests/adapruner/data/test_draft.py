"""Windows and seeds of a pool in the making."""

from __future__ import annotations

import random

import pytest

from adapruner.config import CalibrationConfig, EvaluationConfig, FinetuneConfig
from adapruner.data.draft import Draft, PoolSettings
from adapruner.data.splits import draw
from tests.adapruner.data.test_splits import items_of


def settings_of(seed: int = 0, **fields: int) -> PoolSettings:
    calibration = CalibrationConfig(source="x", sequence_length=16, min_tokens=16, **fields)
    return PoolSettings(calibration, FinetuneConfig(), EvaluationConfig(), seed)


def test_the_held_out_text_has_the_size_of_the_objective_unless_set() -> None:
    assert settings_of(objective_tokens=64).windows == {"objective": 4, "held_out": 4}
    settings = settings_of(objective_tokens=64, held_out_tokens=33)
    assert settings.windows == {"objective": 4, "held_out": 2}


@pytest.mark.parametrize(
    ("split", "seed"), [("objective", "7:objective"), ("held_out", "7:held_back")]
)
def test_a_seed_draws_the_same_windows_in_every_version(split: str, seed: str) -> None:
    items, draft = items_of(200), Draft()
    settings = settings_of(7, objective_tokens=64)
    draft.draw_windows({"objective": items, "held_out": items}, settings, None)
    drawn = draw(items, 4, random.Random(seed), by_document=True)
    assert draft.samples[split].ravel().tolist() == [int(item.tokens[0]) for item in drawn]


def test_each_purpose_has_its_own_random_numbers() -> None:
    settings = settings_of()
    assert settings.rng("test").random() == settings.rng("test").random()
    assert settings.rng("test").random() != settings.rng("update").random()
