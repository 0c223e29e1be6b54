"""Texts that the dense model generates: distinct, long enough, the same for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapruner.config import RunConfig
from adapruner.data.build_pool import PoolSettings, build_pool
from adapruner.data.pool import Pool, TestTexts
from adapruner.data.self_generated import with_generated_texts
from adapruner.data.sources import resolve_texts
from tests.adapruner.conftest import Workplace
from tests.adapruner.data.pools import run_config

CALIBRATION = {
    "source": "self",
    "self_texts": 90,
    "min_tokens": 16,
    "sequence_length": 16,
    "pool_size": 12,
    "update_size": 20,
    "objective_tokens": 64,
}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    text = tmp_path / "test.txt"
    text.write_text(" ".join(f"w{i % 90 + 3}" for i in range(0, 4000, 11)))
    evaluation = {"texts": {"mine": str(text)}, "sequence_length": 16}
    return run_config(CALIBRATION, evaluation=evaluation)


def generate(work: Workplace, config: RunConfig, seed: int, out: Path) -> Path:
    """Builds the pool of self-generated texts in the new directory `out`."""
    out.mkdir()
    device = work.model.device_config
    sources = with_generated_texts(
        resolve_texts(config).sources, work.checkpoint, device, config.calibration, seed, out
    )
    settings = PoolSettings(config.calibration, config.finetune, config.evaluation, 0)
    build_pool(sources, settings, work.checkpoint, out)
    return out


def test_a_pool_is_built_from_the_models_own_texts(
    workplace: Workplace, config: RunConfig, tmp_path: Path
) -> None:
    out = generate(workplace, config, 0, tmp_path / "out")
    rows = [json.loads(line) for line in (out / "self.jsonl").read_text().splitlines()]
    assert len({row["text"] for row in rows}) == len(rows) == 90
    pool = Pool.read(out)
    assert pool.calibration.shape == (12, 16)
    assert pool.held_out.shape == pool.objective.shape == (4, 16)
    assert list(TestTexts.read(out).texts) == ["mine"]


def test_the_seed_decides_the_texts(
    workplace: Workplace, config: RunConfig, tmp_path: Path
) -> None:
    first, again, other = (
        (generate(workplace, config, seed, tmp_path / name) / "self.jsonl").read_bytes()
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other
