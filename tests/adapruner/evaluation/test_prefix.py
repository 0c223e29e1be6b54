"""A resumed pass against whole forward passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapruner.evaluation import perplexity
from adapruner.evaluation.perplexity import batches_of
from adapruner.evaluation.prefix import prefix_states, resumed
from tests.models import KINDS, small_model, tokens

LAST = 3


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Windows that make two whole batches and a smaller one."""
    monkeypatch.setattr(perplexity, "TOKENS_AT_ONCE", 18)
    return tokens(5, 9)


def logits_of(model: Any, batch: Tensor) -> Tensor:
    logits: Tensor = model(batch.long(), use_cache=False).logits
    return logits


def calls(model: Any) -> list[int]:
    """The numbers of the layers whose MLP runs, as they run."""
    run: list[int] = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: run.append(index))
    return run


@pytest.mark.parametrize("layer", [0, 2, LAST])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_pass_equals_a_whole_one(kind: str, layer: int, windows: Tensor) -> None:
    model = small_model(kind)
    batches = batches_of(windows)
    whole = [logits_of(model, batch) for batch in batches]
    run = calls(model)
    states = prefix_states(model, windows, layer)
    assert run == list(range(layer)) * 3
    assert [tuple(s.shape) for s in states] == [(2, 9, 32), (2, 9, 32), (1, 9, 32)]
    run.clear()
    for batch, state, expected in zip(batches, states, whole, strict=True):
        with resumed(model, layer, state):
            assert torch.equal(logits_of(model, batch), expected)
    assert run == list(range(layer, LAST + 1)) * 3


def test_later_layers_are_the_models_own(windows: Tensor) -> None:
    model, batch = small_model("llama"), batches_of(windows)[0]
    states = prefix_states(model, windows, 2)[0]
    model.model.layers[2].mlp.down_proj.weight.data.zero_()
    whole = logits_of(model, batch)
    with resumed(model, 2, states):
        assert torch.equal(logits_of(model, batch), whole)


def test_what_the_skipped_layers_pass_on_does_not_matter(windows: Tensor) -> None:
    """Where layers return tuples, the model takes the first element of each output."""
    model, batch = small_model("llama"), batches_of(windows)[0]
    whole, states = logits_of(model, batch), prefix_states(model, windows, 2)[0]
    for layer in model.model.layers[:2]:
        layer.register_forward_hook(lambda _, __, output: output[0])
    with resumed(model, 2, states):
        assert torch.equal(logits_of(model, batch), whole)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_the_same_afterwards(fails: bool, windows: Tensor) -> None:
    model, batch = small_model("qwen3"), batches_of(windows)[0]
    weights, whole = copy.deepcopy(model.state_dict()), logits_of(model, batch)
    attributes = [set(vars(module)) for module in model.modules()]
    states = prefix_states(model, windows, 2)[0]
    try:
        with resumed(model, 2, states):
            logits_of(model, batch)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert not any(hooks(module) for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits_of(model, batch), whole)


def test_a_forward_that_was_replaced_before_is_replaced_again(windows: Tensor) -> None:
    model, batch = small_model("llama"), batches_of(windows)[0]
    first = model.model.layers[0]
    first.forward = mine = lambda hidden, **_: hidden
    with resumed(model, 1, prefix_states(model, windows, 1)[0]):
        logits_of(model, batch)
    assert first.forward is mine


def hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
