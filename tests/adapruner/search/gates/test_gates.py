"""Gates by hand: masks, the parameters that they count, their gradients, and the selection."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from adapruner.config import PruningConfig
from adapruner.config.gates import GatesConfig
from adapruner.errors import UnreachableError
from adapruner.models.structures import describe_model
from adapruner.pruning.masks import CHANNELS, KINDS, hard_masks, masked
from adapruner.pruning.surgery import apply
from adapruner.pruning.target import PruningTarget
from adapruner.search.gates.hypernetwork import Hypernetwork, sample_gates
from adapruner.search.gates.search import budget_of, gates_of, plan_of_gates
from adapruner.search.gates.selection import select
from adapruner.search.gates.training import Budget, train_gates
from tests.adapruner.pruning.plans import plan_with_subsets
from tests.models import small_model, tokens


def target_of(model: Any, ratio: float = 0.3, **changes: Any) -> PruningTarget:
    settings = {"layout": "residual_subsets", "ratio": ratio, "ratio_of": "blocks", "round_to": 4}
    return PruningTarget(describe_model(model), PruningConfig(**settings | changes))


def random_logits(target: PruningTarget, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {kind: torch.randn(size, generator=generator) for kind, size in sizes.items()}
        for sizes in gates_of(target)
    ]


@pytest.mark.parametrize("kind", ["llama-biased", "qwen2", "phi3"])
def test_open_gates_give_the_dense_logits(kind: str) -> None:
    model, ids = small_model(kind), tokens(2, 12).long()
    before = model(ids).logits
    ones = [{k: torch.ones(n) for k, n in own.items()} for own in gates_of(target_of(model))]
    with masked(model, ones):
        assert torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("kind", ["llama", "llama-biased", "qwen2", "qwen3", "phi3", "gemma-mqa"])
def test_parameters_of_hard_gates_are_those_of_the_cut_model(kind: str) -> None:
    model = small_model(kind)
    structures, plan = describe_model(model), plan_with_subsets(model)
    budget = Budget(structures, kept=1)
    ones = [{}] * len(structures.layers)
    dense = model.num_parameters()
    gates = hard_masks(structures, plan.layers)
    removed = budget.params(ones) - budget.params(gates)
    apply(model, plan)
    assert dense - removed.item() == model.num_parameters() == plan.params.pruned


def test_budget_term_is_that_of_a_count_by_hand() -> None:
    # Hidden 32, MLP 48, 4 query heads and 2 KV groups of size 8, 4 layers.
    structures = describe_model(small_model("llama"))
    half = {"attention_in": 8, "attention_out": 16, "mlp_in": 24, "mlp_out": 4, CHANNELS: 12}
    sizes = {kind: 48 if kind == CHANNELS else 32 for kind in KINDS}
    gates = {kind: (torch.arange(sizes[kind]) < half[kind]).float() for kind in KINDS}
    one = (32 + 2 * 16) * 8 + 32 * 16 + 2 * 12 * 24 + 12 * 4
    whole = (32 + 2 * 16) * 32 + 32 * 32 + 3 * 32 * 48
    budget = Budget(structures, kept=5000)
    assert budget.params([gates, {}, {}, {}]).item() == one + 3 * whole
    assert budget.excess([gates] * 4).item() == pytest.approx(math.log(4 * one / 5000))
    assert budget.layer_params(structures.layers[0], half) == one
    # One more channel costs 2 mlp_in + mlp_out, one more dimension of mlp_in 2 channels.
    for gate in gates.values():
        gate.requires_grad_()
    budget.params([gates, {}, {}, {}]).backward()
    assert gates[CHANNELS].grad is not None
    assert gates[CHANNELS].grad.unique().tolist() == [2 * 24 + 4]
    assert gates["mlp_in"].grad is not None
    assert gates["mlp_in"].grad.unique().tolist() == [2 * 12]


def test_gates_are_binary_and_open_with_the_probability_of_their_logits() -> None:
    logits = torch.full((20000,), 1.5, requires_grad=True)
    noise = torch.Generator().manual_seed(0)
    ((gate,),) = (own.values() for own in sample_gates([{"mlp_in": logits}], 0.4, noise))
    assert set(gate.unique().tolist()) == {0.0, 1.0}
    assert gate.mean().item() == pytest.approx(torch.tensor(1.5).sigmoid().item(), abs=0.01)
    gate.sum().backward()
    assert logits.grad is not None
    assert logits.grad.mean() > 0.1, "the rounding passes the gradient on"


def test_gradients_reach_every_gate_and_no_weight() -> None:
    model, ids = small_model("llama"), tokens(2, 12).long()
    gates = [
        {kind: torch.ones(size, requires_grad=True) for kind, size in own.items()}
        for own in gates_of(target_of(model))
    ]
    with masked(model, gates):
        model(ids).logits.square().sum().backward()
    for own in gates:
        assert all(gate.grad is not None and gate.grad.any() for gate in own.values())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("layout", ["residual_subsets", "per_layer"])
def test_selection_keeps_the_highest_logits_at_the_ratio(layout: str, ratio: float) -> None:
    model = small_model("llama")
    ends = {"protect_first": 1, "protect_last": 0}
    target = target_of(model, ratio * (1 if layout != "per_layer" else 0.5), layout=layout, **ends)
    logits = random_logits(target)
    kept = select(logits, budget_of(target), target)
    plan = plan_of_gates(target, kept, {})
    # Half a step: 2 channels, or 2 dimensions that 2 x 48 rows or 64 rows read.
    most = 2 * max(2 * 48, 2 * 16 + 32, 3 * 32)
    removed = plan.params.dense - plan.params.pruned
    assert abs(removed - target.budget) <= most
    for own, chosen in zip(logits, kept, strict=True):
        for kind, values in own.items():
            assert len(chosen[kind]) % 4 == 0
            left = [i for i in range(len(values)) if i not in chosen[kind]]
            assert not left or values[chosen[kind]].min() >= values[left].max()
    if layout == "per_layer":
        assert plan.layers[0].channels() == list(range(48))
        assert not plan.has_subsets
    apply(model, plan)
    assert model.num_parameters() == plan.params.pruned


def test_ratios_that_widths_can_not_have_are_refused() -> None:
    model = small_model("llama")
    target = target_of(model, 0.95, round_to=16)
    with pytest.raises(UnreachableError, match="parameters too many"):
        select(random_logits(target), budget_of(target), target)
    target = target_of(model, 0.001, round_to=16)
    with pytest.raises(UnreachableError, match="rounds to nothing"):
        select(random_logits(target), budget_of(target), target)


def test_hypernetwork_has_logits_for_every_gate_that_depend_on_all_blocks() -> None:
    torch.manual_seed(0)
    network = Hypernetwork(gates_of(target_of(small_model("llama"))))
    logits = network()
    assert [sorted(own) for own in logits] == [sorted(KINDS)] * 4
    before = logits[0]["attention_in"].detach()
    network.blocks[-1] += 1.0  # the last block's fixed input
    assert not torch.equal(network()[0]["attention_in"], before)
    assert "blocks" not in dict(network.named_parameters())


def test_training_meets_the_budget_and_repeats_with_its_seed() -> None:
    model, windows = small_model("llama"), tokens(16, 12)
    target = target_of(model, 0.4)
    before = {name: weight.clone() for name, weight in model.named_parameters()}

    def trained(seed: int, steps: int) -> Any:
        settings = GatesConfig(steps=steps, learning_rate=2e-2)
        return train_gates(model, windows, gates_of(target), budget_of(target), settings, seed)

    first, again, other = (trained(seed, 5) for seed in (0, 0, 1))
    assert first.losses == again.losses != other.losses
    kept = [select(each.logits, budget_of(target), target) for each in (first, again, other)]
    assert kept[0] == kept[1] != kept[2]
    ratios = trained(0, 40).ratios
    assert ratios[0] > 1.3
    assert sum(ratios[-5:]) / 5 == pytest.approx(1, abs=0.1)
    assert all(torch.equal(before[n], weight) for n, weight in model.named_parameters())
