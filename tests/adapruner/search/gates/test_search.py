"""Plans by trained gates, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapruner.comparison.cells import ComparisonConfig, candidate_config, cells, serving
from adapruner.config import RunConfig, presets
from adapruner.config.parsing import parse_section
from adapruner.data.pool import Pool
from adapruner.errors import UnreachableError, UserError
from adapruner.evaluation.perplexity import perplexity
from adapruner.export.planned import check_planned
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.apply import prune
from adapruner.pruning.plan import PruningPlan
from adapruner.search.inputs import SearchInputs
from adapruner.search.planner import search
from adapruner.search.results import SearchResult, Trials
from tests.adapruner.conftest import Workplace, write_gram_matrices, write_tokenizer
from tests.models import small_model

VALUES: dict[str, Any] = {
    "name": "mine", "calibration": {"source": "t.txt"}, "registry": {"name": "r"},
    "model": {"source": "m", "device": "cpu"}, "search": {"gates": {"steps": 3}},
    "pruning": {
        "ratio": 0.25, "ratio_of": "blocks", "round_to": 4, "protect_first": 1, "protect_last": 1
    },
}  # fmt: skip


GATES = {"search": {"planner": "gates"}}


def parsed(method: str, **changes: Any) -> RunConfig:
    values = {**VALUES, "method": method}
    for section, keys in changes.items():
        values[section] = {**values.get(section, {}), **keys}
    return parse_section(RunConfig, values, "file")


@pytest.fixture(scope="module")
def grams(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grams")
    write_gram_matrices(workplace, out)
    return out


def planned(work: Workplace, grams: Path, config: RunConfig, out: Path) -> Path:
    """The search's directory `out`. Gates read neither an importance table nor tasks."""
    out.mkdir()
    inputs = SearchInputs(work.checkpoint, work.pool, out, grams, out)
    search(inputs, config.plan_config, "sqlite:///no", out)
    return out


@pytest.mark.parametrize("method", ["fisher", "adapruner", "disp-llm"])
def test_gates_make_a_plan_that_is_cut_at_the_ratio(
    method: str, workplace: Workplace, grams: Path, tmp_path: Path
) -> None:
    """With the update of a method, none or least squares."""
    config = parsed(method, search={"planner": "gates"})
    out = planned(workplace, grams, config, tmp_path / "plan")
    plan, result = PruningPlan.read(out), SearchResult.read(out)
    assert plan.ratio.achieved_blocks == pytest.approx(0.25, abs=0.01)
    assert plan.layout == ("residual_subsets" if method == "disp-llm" else "per_layer")
    assert plan.has_subsets == (method == "disp-llm")
    assert plan.provenance["method"] == "gates"
    assert len(Trials.read(out).trials) == 1
    cut = tmp_path / "cut"
    cut.mkdir()
    prune(workplace.checkpoint, out, workplace.pool, config.model, config.reconstruction, cut)
    assert ckpt.inspect(cut).total_params == plan.params.pruned
    if config.reconstruction.method == "none":
        value = perplexity(ckpt.load_model(cut, config.model), Pool.read(workplace.pool).objective)
        assert value == pytest.approx(result.best.values["perplexity"], rel=1e-4)
    again = planned(workplace, grams, config, tmp_path / "again")
    assert (again / PruningPlan.FILE).read_bytes() == (out / PruningPlan.FILE).read_bytes()


def test_families_that_do_not_fit_are_refused_before_the_model_is_loaded(
    workplace: Workplace, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "gemma2"
    small_model("gemma2").save_pretrained(checkpoint)
    write_tokenizer(checkpoint)
    inputs = SearchInputs(checkpoint, workplace.pool, tmp_path, tmp_path, tmp_path)
    with pytest.raises(UnreachableError, match="does not suit Gemma2ForCausalLM"):
        search(inputs, parsed("disp-llm").plan_config, "", tmp_path)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("adapruner", {"pruning": {"layout": "residual_subsets"}}, "needs search.planner gates"),
        ("adapruner", GATES | {"pruning": {"layout": "uniform"}}, "use per_layer or residual_sub"),
        ("adapruner", GATES | {"pruning": {"attention": "kv_groups"}}, "keeps all heads"),
        ("adapruner", GATES | {"pruning": {"experts": "whole"}}, "removes no experts"),
        ("adapruner", GATES | {"pruning": {"ratio_of": "memory"}}, "not of memory"),
        ("saap", GATES, "use pruning.allocation: auto"),
        ("disp-llm", {"pruning": {"attention": "query_heads"}}, "keeps all heads"),
        ("disp-llm", {"pruning": {"target": "vllm"}}, "needs pruning.target transformers"),
        ("disp-llm", {"reconstruction": {"method": "least_squares"}}, "reconstruction.method none"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        parsed(method, **changes)
    assert "\n" not in str(error.value)


def test_exports_are_refused_before_anything_is_computed(workplace: Workplace) -> None:
    pruning = parsed("disp-llm").pruning
    with pytest.raises(UserError, match=r"export\.to gguf can't hold"):
        check_planned(workplace.checkpoint, pruning, False, ("gguf",))
    assert check_planned(workplace.checkpoint, pruning, False, ()) is not None


def test_a_comparison_keeps_the_layout_and_does_not_refuse_the_model() -> None:
    config = parsed("adapruner", pruning={"target": "vllm", "attention": "kv_groups"})
    comparison = ComparisonConfig(methods=("adapruner", "disp-llm"), layouts=("uniform",))
    layouts = {
        cell.method: candidate_config(cell, config, comparison).pruning.layout
        for cell in cells(config, comparison)
    }
    assert layouts == {"adapruner": "uniform", "disp-llm": "residual_subsets"}
    assert {cut.layout for cut in serving(config, comparison).results} == {"uniform"}
    variant = {"method": "adapruner", "settings": GATES}
    comparison = ComparisonConfig(
        methods=("g",), variants={"g": variant}, layouts=("per_layer", "uniform")
    )
    with pytest.raises(UserError, match=r"of g at ratio.*has no pruning\.layout uniform"):
        serving(parsed("adapruner"), comparison)


def test_gates_have_no_trials_and_no_update_of_residual_subsets() -> None:
    assert not parsed("disp-llm").search.is_searched
    assert presets()["disp-llm"].is_random
    assert "disp-llm+update" not in presets()
