"""Each method plans with the statistics that its configuration requests, and needs each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapruner.config import RunConfig
from adapruner.config.presets import presets
from adapruner.importance.needs import gradient_groups
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score, score_with_fluctuation
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable, Lacking
from adapruner.search.single_metric import metric_recipe
from adapruner.search.trials.space import build_space
from tests.models import small_model, tokens

SAMPLES, REFERENCE = 8, [0, 3]
BY_SAMPLE = {"allocation": "fluctuation", "layout": "per_layer"}


def run_config(method: str, **sections: Any) -> RunConfig:
    common: dict[str, Any] = {
        "name": "x",
        "method": method,
        "model": {"source": "x"},
        "calibration": {"source": "x", "objective_source": "y"},
        "registry": {"name": "x"},
    }
    return RunConfig(**(common | sections))


def recipes(config: RunConfig, table: ImportanceTable) -> list[Recipe]:
    """Those that the planner of `config` may score with `table`."""
    if not config.search.is_searched:
        return [metric_recipe(config.search.metric, table, seed=0)]
    space = build_space(table, config.plan_config, 0)
    middle = {name: 0.5 for name in space.distributions if name.startswith("alpha")}
    starts = [start.recipe for start in space.warm_starts.values()]
    return [*starts, starts[0].model_copy(update=middle)]


@pytest.mark.parametrize("allocation", ["auto", "fluctuation"])
@pytest.mark.parametrize("method", [name for name in presets() if "+update" not in name])
def test_a_method_reads_the_statistics_that_it_requests(method: str, allocation: str) -> None:
    is_fluctuation = allocation == "fluctuation"
    if is_fluctuation and method in ("flap", "wanda-sp", "magnitude", "random", "disp-llm", "ast"):
        pytest.skip("no scores of single samples")
    config = run_config(method, pruning=BY_SAMPLE) if is_fluctuation else run_config(method)
    groups = gradient_groups(config)
    if config.search.planner != "importance":
        assert groups == ()
        return
    table = importance_table(small_model("llama"), tokens(SAMPLES, 8), REFERENCE, groups=groups)
    scored = score_with_fluctuation if config.pruning.allocation == "fluctuation" else score
    for recipe in recipes(config, table):
        scored(table, recipe)
    for group in groups:
        less = replace(table, **{group: Lacking(group)})
        with pytest.raises(ValueError, match=f"no statistic {group}"):
            for recipe in recipes(config, table):
                scored(less, recipe)


@pytest.mark.parametrize(
    ("method", "groups"),
    [
        ("adapruner", ("fisher", "element")),
        ("adapruner-paper", ("magnitude", "fisher", "element")),
        ("saap", ("magnitude", "mixed")),
        ("flap", ()),
        ("wanda-sp", ()),
        ("llm-pruner-vector", ()),
        ("llm-pruner-mixed", ("mixed",)),
    ],
)
def test_weight_gradients_are_reduced_for_those_that_need_them(
    method: str, groups: tuple[str, ...]
) -> None:
    assert gradient_groups(run_config(method)) == groups
