"""Masked weights by hand: the forward pass, the gradient, the decay and the masks of each step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapruner.models.semi_structured import mask_of
from adapruner.recovery.sparse.masks import MaskedWeights, mask_at, shadow_of

WEIGHT = torch.tensor([[1.0, -4.0, 2.0, -3.0], [0.5, 0.25, -0.125, 0.0625]])
KEPT = torch.tensor([[False, True, False, True], [True, True, False, False]])
INPUT = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def masked(steps: int = 8, update_steps: int = 100, decay: float = 0.0) -> MaskedWeights:
    linear = nn.Linear(4, 2, bias=False).requires_grad_(False)
    linear.weight.copy_(WEIGHT)
    return MaskedWeights.put(
        {"w": (linear, "weight")}, {"w": mask_of(WEIGHT.abs())}, steps, update_steps, decay
    )


def gradient(masks: MaskedWeights) -> torch.Tensor:
    """The gradient of the sum of the outputs for INPUT."""
    linear, name = masks.owners["w"]
    shadow = shadow_of(linear, name)
    shadow.grad = None
    linear(INPUT).sum().backward()
    assert shadow.grad is not None
    return shadow.grad


def test_the_forward_pass_uses_the_kept_weights() -> None:
    masks = masked()
    linear, name = masks.owners["w"]
    assert torch.equal(linear.weight, WEIGHT * KEPT)
    assert torch.equal(linear(INPUT), torch.tensor([[-8.0 - 12.0, 0.5 + 0.5]]))
    assert torch.equal(shadow_of(linear, name), WEIGHT)
    assert torch.equal(masks.weights()["w"], WEIGHT * KEPT)


def test_the_gradient_passes_straight_through_the_mask() -> None:
    assert torch.equal(gradient(masked()), INPUT.expand(2, 4)), "that of a dense weight"


def test_masked_weights_decay() -> None:
    masks = masked(decay=0.5)
    masks.before_step(5)  # the ramp ends with half of the 8 steps
    expected = INPUT.expand(2, 4) + 0.5 * torch.tensor([[1.0, 0, 2, 0], [0, 0, -0.125, 0.0625]])
    assert torch.equal(gradient(masks), expected)


@pytest.mark.parametrize(
    ("step", "share"), [(1, 0.0), (2, 0.25), (3, 0.5), (4, 0.75), (5, 1.0), (8, 1.0)]
)
def test_the_decay_grows_over_the_first_half_of_the_steps(step: int, share: float) -> None:
    masks = masked(decay=2e-4)
    masks.before_step(step)
    assert mask_at(*masks.owners["w"]).decay == pytest.approx(share * 2e-4)


def test_masks_change_every_few_steps_with_the_magnitudes_of_shadow_weights() -> None:
    masks = masked(update_steps=3)
    linear, name = masks.owners["w"]
    shadow, mask = shadow_of(linear, name), mask_at(linear, name)
    with torch.no_grad():
        shadow[0, 2] = -3.5  # a masked weight that grew
    for step in (1, 2, 3):
        masks.before_step(step)
        assert torch.equal(mask.kept, KEPT)
    masks.before_step(4)
    assert mask.kept.tolist() == [[False, True, True, False], [True, True, False, False]]
    assert torch.equal(linear.weight[0], torch.tensor([0.0, -4.0, -3.5, 0.0]))


def test_a_masked_weight_that_learns_returns() -> None:
    masks = masked(update_steps=1)
    linear, name = masks.owners["w"]
    optimizer = torch.optim.SGD([shadow_of(linear, name)], lr=1.0)
    for step in (1, 2, 3):
        masks.before_step(step)
        optimizer.zero_grad()
        linear(INPUT).sum().backward()
        optimizer.step()
    assert mask_at(linear, name).kept[0].tolist() == [False, True, False, True]
    assert mask_at(linear, name).kept[1].tolist() == [False, False, True, True]
