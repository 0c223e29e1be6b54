"""Texts that the dense model writes: long enough, of its own distribution, the same by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from adapruner.data.build_pool import build_pool
from adapruner.config import RunConfig
from adapruner.errors import UserError
from adapruner.data.self_generated import written
from adapruner.data.sources import resolve_texts
from tests.adapruner.conftest import Workplace


def config_of(work: Workplace, texts: dict[str, str]) -> RunConfig:
    calibration = {"source": "self", "self_texts": 90, "min_tokens": 16, "sequence_length": 16,
                   "pool_size": 12, "update_size": 20, "objective_tokens": 64}  # fmt: skip
    return RunConfig.model_validate(
        {
            "name": "run",
            "model": work.model.model_dump(),
            "calibration": calibration,
            "evaluation": {"texts": texts, "sequence_length": 16},
            "registry": {"name": "m"},
        }
    )


def pool_of(work: Workplace, config: RunConfig, seed: int, out: Path) -> Path:
    out.mkdir()
    sources = written(
        resolve_texts(config), work.checkpoint, config.model.device_config, config.calibration, seed, out
    )
    build_pool(
        sources, config.calibration, config.finetune, config.evaluation, work.checkpoint, 0, out
    )
    return out


def test_a_pool_of_the_models_own_texts(workplace: Workplace, tmp_path: Path) -> None:
    text = tmp_path / "held_out.txt"
    text.write_text(" ".join(f"w{i % 90 + 3}" for i in range(0, 4000, 11)))
    config = config_of(workplace, {"held_out": str(text)})
    first, again, other = (
        pool_of(workplace, config, seed, tmp_path / f"{n}") for n, seed in enumerate((0, 0, 1))
    )
    rows = [json.loads(line) for line in (first / "self.jsonl").read_text().splitlines()]
    assert len({row["text"] for row in rows}) == len(rows) == 90
    pool = load_file(first / "pool.safetensors")
    assert pool["calibration"].shape == (12, 16)
    assert pool["held_out"].shape == pool["objective"].shape == (4, 16)
    texts = [(folder / "self.jsonl").read_bytes() for folder in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert list(json.loads((first / "test.json").read_text())) == ["held_out"]


def test_a_model_is_not_tested_on_what_it_wrote(workplace: Workplace) -> None:
    with pytest.raises(UserError, match="name a test text"):
        resolve_texts(config_of(workplace, {}))
