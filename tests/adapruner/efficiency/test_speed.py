"""Speed of two checkpoints in every setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig
from adapruner.efficiency.results import Speed, Spread
from adapruner.efficiency.speed import measure_speed, spread
from tests.adapruner.conftest import Workplace

SETTINGS = EvaluationConfig(prompt_tokens=(8, 4, 8), batch_sizes=(1, 2), new_tokens=4, repeats=3)


def test_speed_is_measured_in_every_setting(workplace: Workplace, tmp_path: Path) -> None:
    checkpoint = workplace.checkpoint
    speed = measure_speed(checkpoint, checkpoint, workplace.model, SETTINGS)
    names = {f"batch_{batch}_prompt_{length}" for batch in (1, 2) for length in (4, 8)}
    assert set(speed.dense) == set(speed.pruned) == set(speed.speedup) == names
    for throughput in (*speed.dense.values(), *speed.pruned.values()):
        for phase in (throughput.prefill_tokens_per_s, throughput.decode_tokens_per_s):
            assert 0 < phase.min <= phase.q1 <= phase.median <= phase.q3 <= phase.max
    assert (speed.protocol.batch_sizes, speed.protocol.prompt_tokens) == ((1, 2), (4, 8))
    speed.write(tmp_path)
    assert Speed.read(tmp_path) == speed


def test_the_speedup_is_the_ratio_of_median_speeds(workplace: Workplace) -> None:
    checkpoint = workplace.checkpoint
    speed = measure_speed(checkpoint, checkpoint, workplace.model, SETTINGS)
    for name, speedup in speed.speedup.items():
        dense, pruned = speed.dense[name], speed.pruned[name]
        for ratio, before, after in (
            (speedup.prefill, dense.prefill_tokens_per_s, pruned.prefill_tokens_per_s),
            (speedup.decode, dense.decode_tokens_per_s, pruned.decode_tokens_per_s),
        ):
            assert ratio == pytest.approx(after.median / before.median)


def test_spread_is_median_quartiles_and_range() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(median=3, q1=2, q3=4, min=1, max=5)
    assert set(spread([2.0]).model_dump().values()) == {2.0}
