"""Weights in groups: the codes by hand, their packing, and what rounding costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapruner.models.groups import LEVELS, Groups, quantize, read_groups, write_groups


def random_weight(rows: int = 6, columns: int = 128, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_weights_on_a_grid_are_stored_exactly() -> None:
    codes = torch.arange(32) % 16
    weight = torch.stack([codes * 0.25 - 2, codes * 0.5 + 1, torch.full((32,), 0.75)])
    groups = quantize(weight, 32)
    assert groups.step.tolist() == [[0.25], [0.5], [0.0]]
    assert groups.minimum.tolist() == [[-2.0], [1.0], [0.75]]
    assert torch.equal(groups.dense(), weight)


def test_a_byte_holds_a_column_and_the_one_sixteen_behind_it() -> None:
    weight = torch.zeros(1, 64)
    weight[0, :32] = torch.cat([torch.zeros(15), torch.tensor([15.0]), torch.arange(16.0)])
    weight[0, 32:] = 15 - torch.arange(32.0) % 16
    codes = quantize(weight, 32).codes
    assert codes[0, 0].tolist() == [16 * j for j in range(15)] + [15 + 16 * 15]
    assert codes[0, 1].tolist() == [17 * (15 - j) for j in range(16)]


def test_the_error_is_at_most_half_a_step_of_the_range_or_smaller_in_square() -> None:
    weight = random_weight()
    grouped = weight.view(6, 4, 32)
    low, high = grouped.aminmax(dim=-1, keepdim=True)
    step = (high - low) / LEVELS
    plain = ((grouped - low) / step).round() * step + low
    error = (quantize(weight, 32).dense().view_as(grouped) - grouped).square().sum(-1)
    assert (error <= (plain - grouped).square().sum(-1) * 1.001).all()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_groups_by_the_range_of_the_values_are_the_same_groups(size: int) -> None:
    groups = quantize(random_weight(), size)
    values = groups.dense().view(6, -1, size)
    low, high = values.aminmax(dim=-1)
    step = (high - low) / LEVELS
    assert groups.size == size
    torch.testing.assert_close(low.half(), groups.minimum, rtol=0, atol=0)
    torch.testing.assert_close(step.half(), groups.step, rtol=0, atol=0)
    again = quantize(groups.dense(), size)
    assert torch.equal(again.codes, groups.codes)


def test_a_moved_minimum_moves_every_weight_of_its_group() -> None:
    groups = quantize(random_weight(), 64)
    moved = groups.moved(groups.minimum.float() + torch.tensor([0.5, -0.25]))
    change = (moved.dense() - groups.dense()).view(6, 2, 64)
    expected = (moved.minimum.float() - groups.minimum.float())[..., None].expand_as(change)
    torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-6)


def test_a_file_returns_the_groups_of_the_weights_that_it_has(tmp_path: Path) -> None:
    groups = quantize(random_weight(), 32)
    write_groups({"a.weight": groups}, tmp_path / "groups.safetensors")
    read = read_groups(tmp_path / "groups.safetensors", ("a.weight", "b.weight"))
    assert list(read) == ["a.weight"]
    for part in Groups.__annotations__:
        assert torch.equal(getattr(read["a.weight"], part), getattr(groups, part))
