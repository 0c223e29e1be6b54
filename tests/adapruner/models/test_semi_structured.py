"""Masks by hand, and the projections that they apply to."""

from __future__ import annotations

import pytest
import torch

from adapruner.errors import UnreachableError
from adapruner.models.semi_structured import check_sparse, check_widths, mask_of, projections
from adapruner.models.structures import describe_model, layer_modules, placed
from tests.models import KINDS, small_model


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([1, 4, 2, 3], [0, 1, 0, 1]),
        ([4, 3, 2, 1], [1, 1, 0, 0]),
        ([0, 0, 0, 0], [1, 1, 0, 0]),
        ([1, 2, 2, 2], [0, 1, 1, 0]),
        ([2, 1, 2, 3], [1, 0, 0, 1]),
        ([1, 1, 0, 1], [1, 1, 0, 0]),
        ([0, 1, 0, 1, 5, 5, 6, 5], [0, 1, 0, 1, 1, 0, 1, 0]),
    ],
)
def test_the_two_highest_of_four_are_kept_and_of_equal_ones_the_first(
    scores: list[float], kept: list[int]
) -> None:
    assert mask_of(torch.tensor([scores]).float()).tolist() == [[bool(k) for k in kept]]


def test_a_mask_is_that_of_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (3, 5, 32), generator=generator).float()
    order = scores.view(3, 5, 8, 4).argsort(dim=-1, descending=True, stable=True)[..., :2]
    expected = torch.zeros(3, 5, 8, 4, dtype=torch.bool).scatter_(-1, order, True).flatten(-2)
    assert torch.equal(mask_of(scores), expected)
    assert torch.equal(mask_of(scores.bfloat16()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_projections_are_all_weights_of_attention_and_mlps(kind: str) -> None:
    model = small_model(kind)
    found = {id(getattr(*owner)) for owner in projections(model).values()}
    for modules in layer_modules(model):
        if hasattr(modules.mlp, "experts"):
            experts = modules.mlp.experts
            expected = [experts.gate_up_proj, experts.down_proj]
            parts = [modules.query, modules.key, modules.value, modules.output]
        else:
            expected, parts = [], list(modules.projections.values())
        expected += [placed(part)[0].weight for part in parts]
        found -= {id(weight) for weight in expected}
    assert not found, "each belongs to a layer's projections"
    weights = dict(model.named_parameters())
    assert all(weights[name] is getattr(*owner) for name, owner in projections(model).items())


def test_a_weight_with_three_of_four_is_not_sparse() -> None:
    model = small_model("llama")
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj"):
        check_sparse(model)
    for owner in projections(model).values():
        getattr(*owner).mul_(mask_of(getattr(*owner).abs()))
    check_sparse(model)
    last = model.model.layers[3].mlp.down_proj.weight
    last[5, 8:12] = 1
    with pytest.raises(ValueError, match=r"layers\.3\.mlp\.down_proj"):
        check_sparse(model)


def test_widths_must_be_multiples_of_four() -> None:
    check_widths(describe_model(small_model("llama")))
    with pytest.raises(UnreachableError, match="the MLP's width of layer 0 is 46"):
        check_widths(describe_model(small_model("llama", intermediate_size=46)))
