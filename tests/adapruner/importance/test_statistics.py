"""The importance pass against gradients computed directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.errors import UserError
from adapruner.importance import gradients
from adapruner.importance.statistics import (
    importance_table,
    reference_subset,
    with_reference,
)
from adapruner.importance.table import UNITS, ImportanceTable
from adapruner.importance.terms import GRADIENT_GROUPS
from adapruner.models.structures import describe_model, layer_modules, placed
from tests.models import KINDS, small_model, tokens, with_linear_experts

SAMPLES, LENGTH, LAYER = 7, 10, 1
SUBSET, REFERENCE = [1, 2, 5], [0, 3, 4]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor, ImportanceTable]:
    model, ids = small_model(request.param), tokens(SAMPLES, LENGTH)
    return model, ids, importance_table(model, ids, REFERENCE)


def direct(model: Any, ids: Tensor, samples: list[int]) -> dict[str, Tensor]:
    """w * dL/dw by projection, rows first (columns of down and output), bias as a last column."""
    model = with_linear_experts(model)
    model.requires_grad_(True)
    model.zero_grad()
    rows = ids[samples].long()
    sum(model(row[None], labels=row[None]).loss for row in rows).backward()
    products = {}
    for name, projection in layer_modules(model)[LAYER].projections.items():
        linear, unit_rows = placed(projection)
        product = (linear.weight * linear.weight.grad)[unit_rows]
        if name in ("down", "output"):
            product = product.T
        elif linear.bias is not None:
            bias = (linear.bias * linear.bias.grad)[unit_rows]
            product = torch.cat([product, bias[:, None]], 1)
        products[name] = product.detach()
    return products


def by_unit(model: Any, name: str, values: Tensor) -> Tensor:
    rows = 1 if UNITS[name] == "mlp" else describe_model(model).head_dim
    return values.view(-1, rows).sum(1)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-6 * float(b.abs().max()) + 1e-12)


def test_coarse_of_any_subset_is_that_of_its_summed_gradient(case: Any) -> None:
    model, ids, table = case
    products = direct(model, ids, SUBSET)
    for name in ("gate", "down", "query", "output"):
        expected = by_unit(model, name, products[name].sum(1))
        got = table.coarse[name][LAYER][SUBSET].sum(0)
        # A normalised query's sum is zero but for rounding, so the scale is that of its terms.
        scale = float(products[name].abs().sum(1).max())
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5 * scale)


def test_fisher_and_magnitude_of_any_subset_are_sums_over_samples(case: Any) -> None:
    model, ids, table = case
    for kind in ("mlp", "heads", "groups"):
        fisher, magnitude = 0, 0
        for sample in SUBSET:
            products = direct(model, ids, [sample])
            for name in (n for n, unit in UNITS.items() if unit == kind):
                fisher += by_unit(model, name, products[name].square().sum(1))
                magnitude += by_unit(model, name, products[name].abs().sum(1))
        close(table.fisher[kind][LAYER][SUBSET].sum(0), fisher)
        close(table.magnitude[kind][LAYER][SUBSET].sum(0), magnitude)


def test_element_is_exact_on_the_reference_subset_and_magnitude_bounds_it(case: Any) -> None:
    model, ids, table = case
    products = direct(model, ids, REFERENCE)
    for kind in ("mlp", "heads", "groups"):
        names = [n for n, unit in UNITS.items() if unit == kind]
        expected = sum(by_unit(model, n, products[n].abs().sum(1)) for n in names)
        close(table.element[kind][LAYER], expected)
        bound = table.magnitude[kind][LAYER][REFERENCE].sum(0)
        assert (bound >= table.element[kind][LAYER] * (1 - 1e-5)).all()
        assert (bound > 1.05 * table.element[kind][LAYER]).any()


def test_coupled_projections_have_equal_coarse_sums(case: Any) -> None:
    model, ids, _ = case
    products = direct(model, ids, SUBSET)
    groups = describe_model(model).layers[0].kv_groups
    down, up = products["down"].sum(1), products["up"].sum(1)
    torch.testing.assert_close(up, down, rtol=1e-3, atol=1e-4 * float(down.abs().max()))
    if describe_model(model).family.couples_heads:
        return  # and none of its heads is removed
    for few, many in (("key", "query"), ("value", "output")):
        heads = by_unit(model, many, products[many].sum(1)).view(groups, -1).sum(1)
        got = by_unit(model, few, products[few].sum(1))
        scale = float(products[few].abs().sum())
        torch.testing.assert_close(got, heads, rtol=1e-3, atol=1e-5 * scale)


def test_logits_of_a_few_tokens_at_a_time_change_nothing(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids, whole = case
    monkeypatch.setattr(gradients, "LOGITS_AT_ONCE", 4)
    in_parts = importance_table(model, ids, REFERENCE).tensors()
    # A normalised query's coarse sum is zero but for rounding, so the scale is that of the gates'.
    of_gates = float(whole.coarse["gate"][LAYER].abs().max())
    for name, tensor in whole.tensors().items():
        scale = of_gates if name.startswith("coarse") else float(tensor.abs().max())
        torch.testing.assert_close(in_parts[name], tensor, rtol=1e-3, atol=1e-5 * scale)


def test_no_gradient_is_left_after_the_pass() -> None:
    fresh = small_model("llama")
    importance_table(fresh, tokens(2, 8), [])
    assert all(p.grad is None for p in fresh.parameters())


def test_another_reference_subset_scores_as_if_it_were_the_first() -> None:
    model, ids = small_model("llama"), tokens(12, 16)
    first = importance_table(model, ids, reference_subset(12, 4, 0))
    whole = importance_table(model, ids, reference_subset(12, 4, 1))
    again = with_reference(model, ids, first, seed=1)
    assert again.reference == whole.reference != first.reference
    for group in ("element", "mixed", "fisher", "input_square"):
        for part, layers in getattr(whole, group).items():
            for one, other in zip(layers, getattr(again, group)[part], strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-9)


def test_reference_subset_is_seeded_and_needs_enough_samples() -> None:
    assert reference_subset(64, 10, 3) == reference_subset(64, 10, 3)
    assert len(set(reference_subset(64, 10, 3))) == 10
    with pytest.raises(UserError, match="has 4 samples"):
        reference_subset(4, 10, 0)


def test_a_table_without_weight_gradients_has_the_other_statistics_unchanged(case: Any) -> None:
    model, ids, whole = case
    cheap = importance_table(model, ids, REFERENCE, groups=())
    tensors = cheap.tensors()
    assert {name.split(".")[0] for name in whole.tensors()} - {
        n.split(".")[0] for n in tensors
    } == {*GRADIENT_GROUPS}
    assert all(torch.equal(tensor, whole.tensors()[name]) for name, tensor in tensors.items())


def test_a_statistic_that_a_table_lacks_is_named(tmp_path: Path) -> None:
    table = importance_table(small_model("llama"), tokens(4, 8), [0, 1], groups=("fisher",))
    table.write(tmp_path)
    for lacking in (table, ImportanceTable.read(tmp_path)):
        assert lacking.fisher["mlp"][0].any()
        with pytest.raises(ValueError, match="has no statistic magnitude"):
            lacking.magnitude["mlp"]
