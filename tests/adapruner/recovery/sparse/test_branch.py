"""The branch begins with the means of the masked weights by group of inputs."""

from __future__ import annotations

import pytest
import torch

from adapruner.errors import UserError
from adapruner.models.semi_structured import mask_of, projections
from adapruner.recovery.sparse.branch import ADAPTER, add_branch, group_sums
from tests.models import small_model


@pytest.mark.parametrize(("inputs", "rank"), [(12, 3), (10, 3), (5, 5)])
def test_every_input_is_in_one_group_of_nearly_equal_size(inputs: int, rank: int) -> None:
    sums = group_sums(inputs, rank)
    assert torch.equal(sums.sum(0), torch.ones(inputs))
    sizes = sums.sum(1)
    assert sizes.max() - sizes.min() <= 1
    assert sums.argmax(0).tolist() == sorted(sums.argmax(0).tolist())


def test_more_groups_than_inputs_are_refused() -> None:
    with pytest.raises(UserError, match=r"finetune\.branch_rank 9"):
        group_sums(8, 9)


def test_a_branch_starts_as_the_mean_of_what_is_masked() -> None:
    model = small_model("llama")
    kept = {name: mask_of(getattr(*owner).abs()) for name, owner in projections(model).items()}
    branched = add_branch(model, 4, kept)
    name = "model.layers.1.mlp.down_proj"
    module = branched.base_model.model.get_submodule(name)
    weight = module.base_layer.weight * ~kept[f"{name}.weight"]
    means = weight.view(32, 4, 12).mean(-1)
    torch.testing.assert_close(module.lora_B[ADAPTER].weight, means)
    expected = means.repeat_interleave(12, 1)
    torch.testing.assert_close(module.get_delta_weight(ADAPTER), expected)
