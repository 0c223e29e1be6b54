"""The sensitivity of a layer is the divergence with that layer alone cut and updated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.evaluation.divergence import mean_divergence, top_log_probs
from adapruner.models.structures import describe_model
from adapruner.pruning.allocation.width_profile import REMOVED, optimal_shares
from adapruner.pruning.gram_matrices import compute_gram_matrices
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.reconstruction.least_squares import apply_and_update
from adapruner.pruning.sensitivity import TOP_K, measure_sensitivity
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.update import RIDGE
from tests.adapruner.pruning.plans import plan_keeping
from tests.models import KINDS, small_model, tokens


def ascending_scores(model: Any) -> list[Tensor]:
    """The score of channel c is c, so that the first channels are removed."""
    return [torch.arange(w.mlp_channels).float() for w in describe_model(model).layers]


def half_of(model: Any, layer: int) -> PruningPlan:
    """The plan that removes the first half of one layer's channels."""
    structures = describe_model(model)
    keep = [
        (range(w.mlp_channels // 2 if i == layer else 0, w.mlp_channels), range(w.query_heads))
        for i, w in enumerate(structures.layers)
    ]
    return plan_keeping(structures, keep)


@pytest.mark.parametrize("kind", KINDS)
def test_sensitivity_is_the_divergence_with_that_layer_alone_cut(kind: str) -> None:
    model, windows = small_model(kind), tokens(4, 16, seed=3)
    before = copy.deepcopy(model.state_dict())
    measured: dict[int, list[float]] = {}
    rows = measure_sensitivity(
        model, ascending_scores(model), windows, None, {}, measured.__setitem__
    )
    assert all(bool((value == before[n]).all()) for n, value in model.state_dict().items())
    assert rows.tolist() == [measured[i] for i in range(4)]
    teacher = top_log_probs(model, windows, TOP_K)
    with narrowed(model, half_of(model, 1)):
        expected = mean_divergence(model, windows, teacher)
    assert float(rows[1, REMOVED.index(0.5)]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_candidates_are_updated_like_the_final_model(tmp_path: Path) -> None:
    model, samples, windows = small_model("llama"), tokens(8, 16), tokens(4, 16, seed=3)
    grams = compute_gram_matrices(model, samples, torch.zeros(8, dtype=torch.int), tmp_path)
    rows = measure_sensitivity(model, ascending_scores(model), windows, grams, {}, lambda *_: None)
    teacher, plan = top_log_probs(model, windows, TOP_K), half_of(model, 2)
    with narrowed(model, plan):
        sliced = mean_divergence(model, windows, teacher)
    apply_and_update(model, plan, samples, RIDGE)
    final = mean_divergence(model, windows, teacher)
    assert float(rows[2, REMOVED.index(0.5)]) == pytest.approx(final, rel=1e-3)
    assert abs(sliced - final) > 0.01 * final


def test_measured_layers_are_not_measured_again() -> None:
    model, windows = small_model("llama"), tokens(4, 16)
    measured: dict[int, list[float]] = {}
    cached = {0: [1.0] * len(REMOVED), 2: [2.0] * len(REMOVED)}
    rows = measure_sensitivity(
        model, ascending_scores(model), windows, None, cached, measured.__setitem__
    )
    assert sorted(measured) == [1, 3]
    assert rows[0].tolist() == cached[0]
    assert rows[2].tolist() == cached[2]


def test_overflowing_candidate_counts_as_the_worst() -> None:
    model, windows = small_model("llama"), tokens(4, 16)
    model.model.layers[2].mlp.down_proj.weight.data[0, -1] = float("inf")
    rows = measure_sensitivity(model, ascending_scores(model), windows, None, {}, lambda *_: None)
    assert bool(rows.isfinite().all())
    assert bool(optimal_shares(rows, [48] * 4, 60.0).isfinite().all())
