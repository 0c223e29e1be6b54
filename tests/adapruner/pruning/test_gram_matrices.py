"""The update of a trial equals the update of the final model, where nothing below is cut."""

from __future__ import annotations

from pathlib import Path

import torch

from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning.gram_matrices import compute_gram_matrices
from adapruner.pruning.reconstruction.least_squares import apply_and_update
from tests.adapruner.pruning.plans import plan_for, plan_keeping
from tests.models import small_model, tokens


def test_updated_projection_of_the_first_cut_layer_equals_the_final_one(tmp_path: Path) -> None:
    model, samples = small_model("llama"), tokens(40, 16)
    structures = describe_model(model)
    keep = [
        (range(24 if i == 2 else 0, w.mlp_channels), range(w.query_heads))
        for i, w in enumerate(structures.layers)
    ]
    plan = plan_keeping(structures, keep)
    updated = compute_gram_matrices(model, samples, tmp_path, 0.05).updated_projections(model, plan)
    assert list(updated) == [2]
    apply_and_update(model, plan, samples, 0.05)
    torch.testing.assert_close(
        updated[2], layer_modules(model)[2].down.weight, rtol=1e-4, atol=1e-6
    )


def test_layers_that_are_not_cut_are_not_updated(tmp_path: Path) -> None:
    model = small_model("llama")
    grams = compute_gram_matrices(model, tokens(4, 16), tmp_path, 0.05)
    assert grams.updated_projections(model, plan_for(model, "nothing")) == {}
    assert len(list(tmp_path.iterdir())) == 4
