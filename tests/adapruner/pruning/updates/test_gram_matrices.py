"""Gram matrices by domain: mixing them equals computing them on the mixed text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning.plan import Update
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices, stored_bytes
from adapruner.pruning.updates.update import RIDGE, updated_weight
from tests.adapruner.pruning.plans import plan_for, plan_keeping
from tests.models import small_model, tokens

DOMAIN = torch.tensor([0] * 24 + [1] * 8 + [2] * 8)


def gram_of(samples: torch.Tensor, domain: torch.Tensor, root: Path, name: str) -> torch.Tensor:
    """The matrix of layer 2 with equal shares."""
    folder = root / name
    folder.mkdir()
    return compute_gram_matrices(small_model("llama"), samples, domain, folder).of_layer(2)


@pytest.mark.parametrize("shares", [(0.25, 0.75, 0.0), (2.0, 1.0, 1.0), (0.0, 0.0, 1.0), ()])
def test_mixing_by_shares_equals_computing_on_the_mixed_text(
    shares: tuple[float, ...], tmp_path: Path
) -> None:
    samples = tokens(40, 16)
    grams = compute_gram_matrices(small_model("llama"), samples, DOMAIN, tmp_path)
    repeats = {(0.25, 0.75, 0.0): (1, 9, 0), (2.0, 1.0, 1.0): (2, 3, 3), (0.0, 0.0, 1.0): (0, 0, 1)}
    chosen = [
        n
        for n, domain in enumerate(DOMAIN.tolist())
        for _ in range(repeats.get(shares, (1, 1, 1))[domain])
    ]
    mixed = gram_of(samples[chosen], torch.zeros(len(chosen), dtype=torch.int), tmp_path, "mixed")
    scale = mixed.diagonal().sqrt()
    error = (grams.of_layer(2, shares) - mixed) / scale / scale.unsqueeze(1)
    assert error.abs().max() < 2e-3, "rounding to float16"


def test_matrix_is_symmetric_and_half_of_it_is_stored(tmp_path: Path) -> None:
    grams = compute_gram_matrices(small_model("llama"), tokens(40, 16), DOMAIN, tmp_path)
    matrix = grams.of_layer(2, (0.2, 0.3, 0.5))
    torch.testing.assert_close(matrix, matrix.T, rtol=2e-3, atol=1e-5)
    stored = load_file(tmp_path / "gram.0002.safetensors")
    numbers = sum(part.numel() for name, part in stored.items() if name.startswith("rows"))
    assert stored_bytes(tuple(matrix.shape)) * 3 == 2 * numbers
    assert numbers < 0.6 * 3 * matrix.numel()


def test_order_of_the_samples_does_not_matter(tmp_path: Path) -> None:
    samples, order = tokens(40, 16), torch.randperm(40)
    one = gram_of(samples, DOMAIN, tmp_path, "one")
    two = gram_of(samples[order], DOMAIN[order], tmp_path, "two")
    torch.testing.assert_close(one, two, rtol=2e-3, atol=1e-5)


def test_projections_are_updated_with_the_shares_and_the_ridge_of_the_plan(tmp_path: Path) -> None:
    model = small_model("llama")
    structures = describe_model(model)
    keep = [
        (range(24 if i == 2 else 0, w.mlp_channels), range(w.query_heads))
        for i, w in enumerate(structures.layers)
    ]
    grams = compute_gram_matrices(model, tokens(40, 16), DOMAIN, tmp_path)
    plan, shares = plan_keeping(structures, keep), (0.2, 0.3, 0.5)
    whole, kept = layer_modules(model)[2].down.weight, plan.layers[2].channels()
    other = replace(grams, ridge=0.3)
    cases = ((grams, Update(shares=shares, ridge=0.02), 0.02), (grams, Update(), RIDGE))
    for matrices, update, ridge in (*cases, (other, Update(), 0.3)):
        changed = plan.model_copy(update={"update": update})
        updated = matrices.updated_projections(model, changed)
        assert list(updated) == [2]
        expected = updated_weight(whole, grams.of_layer(2, update.shares), kept, ridge)
        torch.testing.assert_close(updated[2], expected)


def test_layers_that_are_not_cut_are_not_updated(tmp_path: Path) -> None:
    model = small_model("llama")
    grams = compute_gram_matrices(model, tokens(40, 16), DOMAIN, tmp_path)
    assert grams.updated_projections(model, plan_for(model, "nothing")) == {}
    assert len(list(tmp_path.iterdir())) == 4
