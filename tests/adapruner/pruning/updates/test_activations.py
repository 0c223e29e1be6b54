"""The activation stream computes what whole forward passes compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapruner.models.structures import layer_modules
from adapruner.pruning.reconstruction.bias import input_means
from adapruner.pruning.semi_structured import input_norms
from adapruner.pruning.updates import activations
from adapruner.pruning.updates.activations import MICRO_BATCH, ActivationStream
from tests.models import KINDS, small_model, tokens, with_linear_experts


def inputs_of(model: Any, linear: nn.Linear, samples: Tensor) -> Tensor:
    """The inputs of `linear` in a forward pass of all samples, [tokens, in]."""
    rows: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(samples)
    handle.remove()
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_s_gram_matrix_is_that_of_a_whole_forward_pass(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "PANEL", 20)  # three panels, the last one narrower
    model = small_model(kind)
    samples = tokens(MICRO_BATCH + 3, 12)  # the last micro-batch is smaller
    stream = ActivationStream(model, samples)
    whole = with_linear_experts(model)
    for modules, layer in zip(layer_modules(model), whole.model.layers, strict=True):
        down = layer.mlp.down_proj
        rows, states = inputs_of(whole, down, samples), inputs_of(whole, layer.mlp, samples)
        text, expected = stream.observe(modules.mlp, modules.down), rows.T @ rows
        if hasattr(modules.mlp, "experts"):
            blocks = rows.view(len(rows), 4, 48)
            expected = torch.einsum("nec,ned->ecd", blocks, blocks)
        # The rounding of the largest sums: OLMo 2 has them of 1e4 and small ones beside.
        atol = 1e-8 * float(expected.max()) if kind == "olmo2-mha" else 1e-5
        torch.testing.assert_close(text.gram, expected, rtol=1e-4, atol=atol)
        torch.testing.assert_close(text.inputs, states, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(text.outputs, down(rows), rtol=1e-4, atol=1e-5)
        stream.advance()


def test_a_failed_pass_leaves_no_hook() -> None:
    model = small_model("llama")
    stream = ActivationStream(model, tokens(2, 12))
    stream.hidden = [torch.zeros(2, 12, 5)]  # not the hidden size
    mlp = model.model.layers[0].mlp
    with pytest.raises(RuntimeError):
        stream.observe(mlp, mlp.down_proj)
    assert not mlp._forward_pre_hooks and not mlp.down_proj._forward_pre_hooks


@pytest.mark.parametrize("run", [ActivationStream, input_means, input_norms])
def test_a_pass_that_needs_no_logits_computes_none(run: Callable[[Any, Tensor], object]) -> None:
    model, computed = small_model("llama"), []
    model.lm_head.register_forward_hook(lambda *_: computed.append(True))
    run(model, tokens(MICRO_BATCH + 3, 12))
    assert not computed
