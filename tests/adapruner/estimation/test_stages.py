from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.config import RunConfig
from adapruner.estimation.stages import STAGES
from adapruner.estimation.units import EMBEDDINGS, TOKENS, Clock, Units, measure_units, timed_tokens
from adapruner.estimation.workload import Workload
from adapruner.importance.needs import gradient_groups
from adapruner.importance.statistics import importance_table
from adapruner.models.shallow import shallow_model
from adapruner.models.streamed.passes import LayerRunner
from adapruner.models.structures import describe_model
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from tests.models import KINDS, small_model, tokens

LENGTH, DOMAINS = 16, 2
UNITS = Units(
    layer=1e-4, backward=1e-4, decode=1e-3, head=2e-4, gram=5e-5, solve=0.1, mix=0.0, fisher=0.05
)


def run_config(**changes: dict[str, Any]) -> RunConfig:
    sections: dict[str, Any] = {
        "calibration": {
            "source": ["a", "b"],
            "min_tokens": LENGTH,
            "sequence_length": LENGTH,
            "pool_size": 12,
            "update_size": 12,
            "objective_tokens": 64,
        },
        "search": {"set_size": 4},
    }
    for section, values in changes.items():
        sections[section] = sections.get(section, {}) | values
    return RunConfig(name="x", model={"source": "x"}, registry={"name": "x"}, **sections)


def workload(kind: str = "llama", **changes: dict[str, Any]) -> Workload:
    model = small_model(kind)
    return Workload(run_config(**changes), describe_model(model), model.config.vocab_size, UNITS, 4)


@pytest.mark.parametrize("kind", ["llama", "qwen3-moe", "phi3"])
def test_disk_is_what_the_stages_write(kind: str, tmp_path: Path) -> None:
    work, model, ids = workload(kind), small_model(kind), tokens(12, LENGTH)
    groups = gradient_groups(work.config)
    importance_table(model, ids, [0, 3, 4, 8], groups=groups).write(tmp_path)
    table = (tmp_path / "importance.safetensors").stat().st_size
    assert STAGES["estimate_importance"](work).disk == pytest.approx(table, rel=0.5)
    folder = tmp_path / "gram"
    folder.mkdir()
    compute_gram_matrices(model, ids, torch.arange(12) % DOMAINS, folder)
    written = sum(file.stat().st_size for file in folder.iterdir())
    assert STAGES["compute_gram_matrices"](work).disk == pytest.approx(written, rel=0.25)


def seconds(stage: str, **changes: dict[str, Any]) -> float:
    return STAGES[stage](workload(**changes)).seconds


@pytest.mark.parametrize(
    ("stage", "changes", "factor"),
    [
        ("compute_gram_matrices", {"calibration": {"update_size": 24}}, 2.0),
        ("finetune", {"finetune": {"steps": 600}}, 2.0),
        ("search", {"calibration": {"objective_tokens": 128, "held_out_tokens": 64}}, 1.3),
        ("evaluate", {"finetune": {"method": "none"}}, 0.7),
    ],
)
def test_time_follows_the_work(stage: str, changes: dict[str, Any], factor: float) -> None:
    base: dict[str, Any] = {
        "finetune": {"steps": 300},
        "evaluation": {"max_windows": 8},
        "calibration": {"held_out_tokens": 64},
    }
    before = seconds(stage, **base)
    assert before > 0
    assert seconds(stage, **base | changes) == pytest.approx(factor * before, rel=0.2)


def test_methods_differ_where_their_work_does() -> None:
    searched, single = (
        {name: stage(workload(**changes)) for name, stage in STAGES.items()}
        for changes in (
            {},
            {"search": {"metric": "wanda"}, "reconstruction": {"method": "none"}},
        )
    )
    assert single["search"].seconds < searched["search"].seconds / 5
    assert single["estimate_importance"].seconds < searched["estimate_importance"].seconds / 2
    assert single["compute_gram_matrices"] == (0, 0, 0)
    assert single["prune"].seconds == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_every_family_is_timed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapruner.estimation.units.LEAST", 0.05)
    model = small_model(kind)
    config, structures = model.config, describe_model(model)
    units = measure_units(config, structures, LENGTH, torch.float32, torch.device("cpu"))
    assert all(0 < value < 1 for value in vars(units).values())


@pytest.mark.parametrize(("seconds", "shape"), [(0.0, (1, 1)), (1e9, (TOKENS // LENGTH, LENGTH))])
def test_a_slow_device_is_timed_on_fewer_tokens(
    seconds: float, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapruner.estimation.units.PASS", seconds)
    config = small_model("llama").config
    runner = LayerRunner(shallow_model(config, 1, EMBEDDINGS, torch.float32))
    assert timed_tokens(runner, LENGTH, Clock(torch.device("cpu"))).shape == shape
