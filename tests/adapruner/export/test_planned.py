"""Formats and runtimes are checked on the dense model, before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapruner.config import PruningConfig
from adapruner.errors import UserError
from adapruner.export.planned import check_planned
from tests.adapruner.export.checkpoints import small, write


@pytest.mark.parametrize(
    ("kind", "settings", "to", "refused"),
    [
        ("llama", {"target": "llama.cpp"}, (), False),
        ("llama", {}, ("gguf", "decilm"), False),
        ("qwen3", {}, (), False),
        ("qwen3", {"target": "llama.cpp"}, (), True),
        ("qwen3", {"target": "llama.cpp", "layout": "uniform"}, (), False),
        ("qwen3", {}, ("gguf",), True),
        ("qwen3", {"layout": "uniform"}, ("decilm",), True),
        ("gemma-mqa", {"target": "portable"}, (), True),
    ],
)
def test_a_result_that_could_not_be_held_is_refused(
    kind: str, settings: dict[str, Any], to: tuple[str, ...], refused: bool, tmp_path: Path
) -> None:
    dense = write(small(kind), tmp_path / "dense")
    pruning = PruningConfig(**settings)
    if refused:
        with pytest.raises(UserError, match="can't hold"):
            check_planned(dense, pruning, False, to)
    else:
        check_planned(dense, pruning, False, to)


def test_heads_by_layer_are_refused_where_a_format_needs_equal_ones(tmp_path: Path) -> None:
    dense = write(small("llama-mha"), tmp_path / "dense")
    by_layer, uniform = PruningConfig(), PruningConfig(layout="uniform")
    with pytest.raises(UserError, match="same number of query heads"):
        check_planned(dense, by_layer, True, ("decilm",))
    check_planned(dense, by_layer, True, ("gguf",))
    check_planned(dense, uniform, True, ("decilm",))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("glm", r"pruning\.attention: none"), ("phi3", "partial_rotary_factor is 0.5")],
)
def test_fewer_heads_are_refused_where_the_architecture_needs_all(
    kind: str, message: str, tmp_path: Path
) -> None:
    dense = write(small(kind), tmp_path / "dense")
    uniform = PruningConfig(target="llama.cpp", layout="uniform")
    check_planned(dense, uniform, False, ())
    with pytest.raises(UserError, match=message):
        check_planned(dense, uniform, True, ())


def test_widths_that_cost_speed_are_named(tmp_path: Path) -> None:
    dense = write(small("llama"), tmp_path / "dense")
    assert check_planned(dense, PruningConfig(), False, ()) == []
    settings = PruningConfig(target="llama.cpp", round_to=8)
    lines = check_planned(dense, settings, False, ())
    assert [line.split(" is no multiple of 32")[0] for line in lines] == [
        "pruning.round_to 8",
        "the width of the protected layers, 48",
    ]
