"""A cut MLP fitted to the whole one is closer to it on fresh text, and never worse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from adapruner.models.structures import layer_modules
from adapruner.pruning.reconstruction.least_squares import UpdateText, apply_and_update
from adapruner.pruning.surgery import apply
from adapruner.pruning.updates.activations import ActivationStream, MlpText
from adapruner.pruning.updates.fit_mlp import fit_mlp
from tests.adapruner.pruning.plans import plan_for
from tests.models import KINDS, small_model, tokens


def first_mlp(model: Any, samples: int, seed: int) -> MlpText:
    """The first layer's MLP on random text."""
    modules = layer_modules(model)[0]
    stream = ActivationStream(model, tokens(samples, 64, seed=seed))
    return stream.observe(modules.mlp, modules.down)


def error(model: Any, text: MlpText) -> float:
    """The squared error of the first layer's MLP, relative to the outputs."""
    with torch.no_grad():
        change = layer_modules(model)[0].mlp(text.inputs[None])[0] - text.outputs
    return float(change.square().sum() / text.outputs.square().sum())


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_lowers_the_error_on_fresh_text_below_that_of_the_update(kind: str) -> None:
    model = small_model(kind)
    text, fresh = first_mlp(model, 256, seed=5), first_mlp(model, 32, seed=6)
    plan = plan_for(model, "channels")
    apply_and_update(model, plan, UpdateText(tokens(256, 64, seed=5)), ridge=0.01)
    updated = error(model, fresh)
    fit_mlp(layer_modules(model)[0].mlp, text, fresh, epochs=4)
    assert error(model, fresh) < 0.98 * updated


def test_fitting_that_does_not_help_on_fresh_text_changes_nothing() -> None:
    model = small_model("llama")
    text, fresh = first_mlp(model, 2, seed=5), first_mlp(model, 32, seed=6)
    before = copy.deepcopy(layer_modules(model)[0].mlp.state_dict())  # whole: there is no error
    fit_mlp(layer_modules(model)[0].mlp, text, fresh, epochs=20)
    for name, weight in layer_modules(model)[0].mlp.state_dict().items():
        assert torch.equal(weight, before[name])


def test_tokens_without_weight_do_not_count() -> None:
    model = small_model("llama")
    text, noise = first_mlp(model, 64, seed=5), first_mlp(model, 64, seed=6)
    cut = copy.deepcopy(model)
    apply(cut, plan_for(model, "channels"))
    fitted = []
    for outputs in (noise.outputs, torch.full_like(noise.outputs, 9.0)):
        mixed = MlpText(
            inputs=torch.cat([text.inputs, noise.inputs]),
            outputs=torch.cat([text.outputs, outputs]),
            weights=torch.tensor([1.0, 0.0]).repeat_interleave(len(text.inputs)),
            gram=text.gram,
        )
        fitted.append(copy.deepcopy(cut))
        fit_mlp(layer_modules(fitted[-1])[0].mlp, mixed, None, epochs=4)
    first, second = (layer_modules(model)[0].mlp.state_dict() for model in fitted)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert error(fitted[0], text) < 0.98 * error(cut, text)


def test_the_same_text_gives_the_same_weights() -> None:
    results = []
    for _ in range(2):
        model, plan = small_model("llama"), plan_for(small_model("llama"), "channels")
        text = UpdateText(tokens(64, 64, seed=5), fresh=tokens(8, 64, seed=6))
        apply_and_update(model, plan, text, ridge=0.1, epochs=2)
        results.append([m.gate.weight.detach() for m in layer_modules(model)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
