"""The plan of 2:4 sparsity: no trial, every structure kept, measured with its zeros."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapruner.config import PlanConfig, RunConfig
from adapruner.config.parsing import parse_section
from adapruner.data.pool import Pool
from adapruner.errors import UnreachableError
from adapruner.evaluation.perplexity import perplexity
from adapruner.models.storage.checkpoint import load_model
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.semi_structured import make_sparse, norms_for
from adapruner.search.inputs import SearchInputs
from adapruner.search.planner import search
from adapruner.search.results import SearchResult
from tests.adapruner.conftest import Workplace
from tests.models import small_model


def planned(work: Workplace, metric: str, out: Path) -> PruningPlan:
    values = {
        "name": "mine", "method": "ast", "model": work.model.model_dump(),
        "calibration": {"source": "t.txt"}, "registry": {"name": "r"},
        "search": {"metric": metric},
    }  # fmt: skip
    config: PlanConfig = parse_section(RunConfig, values, "test").plan_config
    out.mkdir()
    search(SearchInputs(work.checkpoint, work.pool, out, out, out), config, "none", out)
    return PruningPlan.read(out)


@pytest.mark.parametrize("metric", ["magnitude", "wanda"])
def test_every_structure_is_kept_and_half_of_the_weights_are_zero(
    metric: str, workplace: Workplace, tmp_path: Path
) -> None:
    plan = planned(workplace, metric, tmp_path / "plan")
    assert {(layer.mlp_channels, layer.query_heads) for layer in plan.layers} == {("0-47", "0-3")}
    assert plan.sparsity is not None
    assert (plan.sparsity.pattern, plan.sparsity.score) == ("2:4", metric)
    assert plan.sparsity.zeros == 15_360
    assert plan.params.pruned == plan.params.dense
    pool = Pool.read(workplace.pool)
    model = load_model(workplace.checkpoint, workplace.model)
    dense = perplexity(model, pool.objective)
    make_sparse(model, norms_for(metric, model, pool.calibration))
    result = SearchResult.read(tmp_path / "plan")
    assert result.dense_values["perplexity"] == pytest.approx(dense)
    assert result.best.values["perplexity"] == pytest.approx(perplexity(model, pool.objective))


def test_a_model_of_other_widths_is_not_reachable(workplace: Workplace, tmp_path: Path) -> None:
    small_model("llama", intermediate_size=46).save_pretrained(tmp_path / "odd")
    with pytest.raises(UnreachableError, match="multiples of 4"):
        planned(replace(workplace, checkpoint=tmp_path / "odd"), "magnitude", tmp_path / "plan")
