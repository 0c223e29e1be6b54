"""A layer in 4 bit computes what the dense layer with the merged weights computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adapruner.models.groups import Groups, quantize
from adapruner.recovery.groups.linear import GroupedLinear

ROWS, COLUMNS, RANK, SCALE = 10, 128, 3, 2.0


def layer(size: int, bias: bool = True) -> GroupedLinear:
    """A layer with random weights and a random update."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(ROWS, COLUMNS, generator=generator)
    made = GroupedLinear(quantize(weight, size), torch.ones(ROWS) if bias else None, RANK, SCALE)
    with torch.no_grad():
        made.b.normal_(generator=generator)
    return made


def inputs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, COLUMNS, generator=generator, requires_grad=True)


@pytest.mark.parametrize("size", [32, 64])
def test_the_output_is_that_of_the_merged_weight(size: int) -> None:
    made, x = layer(size), inputs()
    expected = F.linear(x, made.merged().dense(), made.bias)
    assert torch.equal(made(x), expected)


@pytest.mark.parametrize("size", [32, 64])
def test_the_update_is_low_rank_on_the_pooled_input(size: int) -> None:
    """QA-LoRA's form, but for the rounding of the minimum: at most 2^-11 of it."""
    made, x = layer(size, bias=False), inputs()
    base = F.linear(x, Groups(made.codes, made.step, made.minimum).dense())
    pooled = x.view(2, 5, -1, size).sum(-1)
    expected = base + SCALE * (pooled @ made.a.T @ made.b.T)
    moved = (made.minimum.float() + SCALE * made.b @ made.a).abs().max().item()
    bound = 2**-11 * moved * x.abs().sum(-1).max().item()
    assert (made(x) - expected).abs().max().item() <= bound


@pytest.mark.parametrize("size", [32, 64])
def test_gradients_are_those_of_a_dense_weight_made_of_the_same_parts(size: int) -> None:
    made, x, upstream = layer(size), inputs(), torch.randn(2, 5, ROWS)
    made(x).backward(upstream)
    reference, a, b = inputs(), made.a.detach().clone(), made.b.detach().clone()
    a.requires_grad_(), b.requires_grad_()
    merged = made.merged()
    codes_part = merged.dense() - merged.minimum.float().repeat_interleave(size, 1)
    minimum = made.minimum.float() + SCALE * b @ a
    rounded = minimum + (merged.minimum.float() - minimum).detach()
    weight = codes_part + rounded.repeat_interleave(size, 1)
    F.linear(reference, weight, made.bias).backward(upstream)
    for ours, theirs in ((x.grad, reference.grad), (made.a.grad, a.grad), (made.b.grad, b.grad)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_no_dense_weight_is_kept_for_the_gradient() -> None:
    made, kept = layer(32), []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made(inputs())
    assert (ROWS, COLUMNS) not in {tuple(tensor.shape) for tensor in kept}


def test_only_the_adapters_are_trained() -> None:
    names = {name for name, weight in layer(32).named_parameters() if weight.requires_grad}
    assert names == {"a", "b"}
