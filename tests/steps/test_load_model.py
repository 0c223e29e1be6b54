from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from adapruner.comparison.cells import ComparisonConfig, serving
from adapruner.config import ModelConfig, RunConfig
from adapruner.errors import UserError
from adapruner.models.storage.sources import resolve
from steps.load_model import load_model
from tests.adapruner.conftest import Workplace
from tests.adapruner.export.checkpoints import small, write
from tests.models import small_model
from tests.steps.configs import minimal_config


def source(checkpoint: Path, folder: Path) -> Path:
    """A directory with the `source.json` of a checkpoint."""
    out = folder / "source"
    out.mkdir()
    resolve(ModelConfig(source=str(checkpoint))).write(out)
    return out


def config(folder: Path, **sections: Any) -> RunConfig:
    """A run whose windows fit the context of the small models, unless `sections` differ."""
    short = {"sequence_length": 64}
    fitting: dict[str, Any] = {
        "calibration": {"source": "t.txt", "min_tokens": 64, **short},
        "finetune": short,
        "evaluation": short,
    }
    changed = {name: fitting.get(name, {}) | values for name, values in sections.items()}
    return minimal_config(folder, **fitting | changed)


def test_a_width_that_costs_speed_where_the_result_is_served_is_a_warning(
    workplace: Workplace, stages_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pruning = {"target": "vllm", "round_to": 8, "ratio": 0.3}
    settings = config(stages_folder, pruning=pruning).serving
    assert settings == config(stages_folder, pruning=pruning | {"ratio": 0.5}).serving
    with caplog.at_level(logging.WARNING):
        out = load_model.entrypoint(source(workplace.checkpoint, stages_folder), settings)
    assert (out / "config.json").is_file()
    assert "pruning.round_to 8 is no multiple of 64" in caplog.text


def test_every_layout_of_a_comparison_is_checked_with_the_dense_model(
    stages_folder: Path,
) -> None:
    dense = write(small("qwen3"), stages_folder / "qwen3")
    settings = config(stages_folder, pruning={"target": "llama.cpp", "layout": "uniform"})
    both = ComparisonConfig(methods=("fisher",), layouts=("uniform", "per_layer"))
    resolved = source(dense, stages_folder)
    load_model.entrypoint(resolved, settings.serving)
    with pytest.raises(UserError, match="layout: uniform"):
        load_model.entrypoint(resolved, serving(settings, both))


def test_a_result_that_can_not_be_served_is_refused_with_the_dense_model(
    stages_folder: Path,
) -> None:
    dense = stages_folder / "qwen3"
    small_model("qwen3").save_pretrained(dense)
    settings = config(stages_folder, export={"to": ["gguf"]}).serving
    with pytest.raises(UserError, match="layout: uniform"):
        load_model.entrypoint(source(dense, stages_folder), settings)


def test_dropout_of_experts_is_refused_with_the_dense_model(stages_folder: Path) -> None:
    dense = write(small("qwen3-moe"), stages_folder / "experts")
    settings = config(stages_folder, finetune={"dropout": 0.1})
    tuned = ComparisonConfig(methods=("fisher",), finetune=True)
    resolved = source(dense, stages_folder)
    for checked in (settings.serving, serving(settings, tuned)):
        with pytest.raises(UserError, match=r"finetune\.dropout above 0: .* set it to 0"):
            load_model.entrypoint(resolved, checked)
    load_model.entrypoint(resolved, serving(settings, ComparisonConfig(methods=("fisher",))))


def test_experts_and_other_widths_than_groups_are_noticed_with_the_dense_model(
    stages_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experts = write(small("qwen3-moe"), stages_folder / "experts")
    dense = write(small("llama", intermediate_size=64), stages_folder / "llama")
    settings = config(stages_folder, finetune={"method": "grouped"})
    assert (settings.export.to, settings.export.type) == (("gguf",), "q4_1")
    tuned = ComparisonConfig(methods=("fisher",), finetune=True)
    resolved = source(experts, stages_folder)
    for checked in (settings.serving, serving(settings, tuned)):
        with pytest.raises(UserError, match=r"method grouped: the experts .* use lora"):
            load_model.entrypoint(resolved, checked)
    (stages_folder / "source" / "source.json").unlink()
    resolve(ModelConfig(source=str(dense))).write(stages_folder / "source")
    with caplog.at_level(logging.WARNING):
        load_model.entrypoint(resolved, settings.serving)
    assert "round_to 8 is no multiple of finetune.group_size 32" in caplog.text


@pytest.mark.parametrize(
    "sections",
    [
        {"evaluation": {"sequence_length": 65}},
        {"finetune": {"sequence_length": 65}},
    ],
)
def test_windows_longer_than_the_context_are_refused_with_the_dense_model(
    sections: dict[str, Any], stages_folder: Path
) -> None:
    resolved = source(write(small("llama"), stages_folder / "llama"), stages_folder)
    load_model.entrypoint(resolved, config(stages_folder).serving)
    with pytest.raises(UserError, match="windows of 65 tokens, the model a context of 64"):
        load_model.entrypoint(resolved, config(stages_folder, **sections).serving)
