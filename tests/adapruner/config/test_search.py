"""The objectives of the search: one name, weights of several, or a list."""

from __future__ import annotations

from typing import Any

import pytest

from adapruner.config import SearchConfig
from adapruner.config.parsing import parse_section
from adapruner.errors import UserError


@pytest.mark.parametrize(
    ("objective", "tasks", "weights", "names"),
    [
        ("kl", [], {"kl": 1.0}, ("kl",)),
        ("margin", ["piqa"], {"margin": 1.0}, ("margin",)),
        (
            {"kl": 1, "margin": 0.5},
            ["piqa"],
            {"kl": 1.0, "margin": 0.5},
            ("1 kl + 0.5 margin",),
        ),
        ({"perplexity": 2.0}, [], {"perplexity": 2.0}, ("2 perplexity",)),
        (["margin", "kl"], ["piqa"], {"margin": 1.0, "kl": 1.0}, ("margin", "kl")),
        (["perplexity", "kl"], [], {"perplexity": 1.0, "kl": 1.0}, ("perplexity", "kl")),
    ],
)
def test_objectives_have_weights_and_names(
    objective: Any, tasks: list[str], weights: dict[str, float], names: tuple[str, ...]
) -> None:
    config = SearchConfig.model_validate({"objective": objective, "tasks": tasks})
    assert config.objectives == weights
    assert config.objective_names == names
    assert SearchConfig.model_validate(config.model_dump()) == config


def test_the_default_is_perplexity() -> None:
    assert SearchConfig().objectives == {"perplexity": 1.0}


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"objective": "margin"}, ("margin", "search.tasks")),
        ({"objective": {"kl": 1.0, "margin": 1.0}}, ("margin", "search.tasks")),
        ({"tasks": ["piqa"]}, ("search.tasks", "margin")),
        ({"objective": {"kl": 1.0, "perplexity": 1.0}}, ("perplexity", "kl", "one of them")),
        ({"objective": {"kl": 0}}, ("search.objective", "weights > 0")),
        ({"objective": {"kl": float("inf")}}, ("search.objective", "weights > 0")),
        ({"objective": {}}, ("search.objective", "weights > 0")),
        ({"objective": {"accuracy": 1.0}}, ("search.objective", "margin")),
        ({"objective": "accuracy"}, ("search.objective", "'accuracy'", "margin")),
        ({"objective": ["kl", "margin"]}, ("margin", "search.tasks")),
        ({"objective": ["kl", "kl"]}, ("objective", "twice")),
        ({"objective": ["kl"]}, ("search.objective", "at least two", "[kl, margin]")),
        ({"objective": []}, ("search.objective", "at least two")),
        ({"objective": ["kl", "accuracy"]}, ("search.objective", "'accuracy'", "margin")),
        ({"rows": 0}, ("search.rows",)),
    ],
)
def test_invalid_objectives_are_refused_in_one_line(
    settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as refused:
        parse_section(SearchConfig, settings, "run.yaml", "search")
    message = str(refused.value)
    assert "\n" not in message and message.count("run.yaml") == 1
    for part in parts:
        assert part in message
