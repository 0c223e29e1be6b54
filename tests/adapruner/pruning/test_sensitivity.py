"""The sensitivity of a layer is the divergence, to second order, with that layer alone cut."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapruner.errors import UserError
from adapruner.evaluation.divergence import top_log_probs, window_divergences
from adapruner.models import activations
from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning import sensitivity
from adapruner.pruning.allocation.width_profile import REMOVED, optimal_shares
from adapruner.pruning.sensitivity import WORST, measure_sensitivity
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from adapruner.pruning.updates.update import RIDGE, updated_weight
from tests.models import BASE, small_model, tokens

CHANNELS = 48
LAST = 3
SMALL = 0.01
"""Factor of the columns that are removed, so that the divergence is of second order."""
SMALL_OF = {"granite": 0.1}
"""The factor of models that scale the MLP's output down."""
SENSITIVE = (
    "llama", "llama-biased", "llama-mha", "mistral", "qwen2", "qwen3", "gemma-mqa", "gemma2",
    "olmo2-mha", "granite", "phi3", "glm4",
)  # fmt: skip
"""Kinds of each family whose MLP differs from the others', or what follows it."""
WIDE = dict.fromkeys(("gemma2", "olmo2-mha", "glm4"), 12)
"""Columns that stay whole in models that normalise the MLP's output: with few, it is often near
zero, and what is removed is not small."""


def ascending_scores(model: Any) -> list[Tensor]:
    """The score of channel c is c, so that the first channels are removed."""
    return [torch.arange(w.mlp_channels).float() for w in describe_model(model).layers]


def rows_of(model: Any, windows: Tensor, grams: Any = None) -> Tensor:
    return measure_sensitivity(model, ascending_scores(model), windows, grams, {}, lambda *_: None)


def model_of_small_cuts(kind: str = "llama") -> Any:
    """A model that loses little with all channels but the last ones, which no candidate removes."""
    model = small_model(kind)
    for modules in layer_modules(model):
        modules.down.weight.data[:, : -WIDE.get(kind, 2)] *= SMALL_OF.get(kind, SMALL)
    return model


@contextmanager
def cut_at(model: Any, layer: int, weight: Tensor, position: int) -> Iterator[None]:
    """Within it, the layer has the down projection `weight` at one position of the windows."""
    down = layer_modules(model)[layer].down
    change = weight - down.weight

    def hook(_: Any, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, position] += args[0][:, position] @ change.T
        return output

    handle = down.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def candidate(model: Any, layer: int, removed: float, gram: Tensor | None = None) -> Tensor:
    """The down projection without its first channels, updated where there is a gram matrix."""
    weight = layer_modules(model)[layer].down.weight
    kept = list(range(round(CHANNELS * removed), CHANNELS))
    narrow = torch.zeros_like(weight)
    narrow[:, kept] = weight[:, kept] if gram is None else updated_weight(weight, gram, kept, RIDGE)
    return narrow


def divergence_of_positions(model: Any, layer: int, weight: Tensor, windows: Tensor) -> float:
    """The sum over the positions of the divergence with the layer cut at that position alone."""
    teacher = top_log_probs(model, windows, BASE["vocab_size"])
    total = 0.0
    for position in range(windows.shape[1]):
        with cut_at(model, layer, weight, position):
            total += window_divergences(model, windows, teacher).mean().item()
    return total


@pytest.fixture
def many_windows(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """So many that the error of the sampled tokens is small."""
    monkeypatch.setattr(sensitivity, "WINDOWS", 512)
    monkeypatch.setattr(sensitivity, "MICRO_BATCH", 256)
    return tokens(512, 12, seed=3)


@pytest.mark.parametrize("kind", SENSITIVE)
def test_estimate_of_a_small_cut_is_the_measured_divergence(
    kind: str, many_windows: Tensor
) -> None:
    model = model_of_small_cuts(kind)
    rows = rows_of(model, many_windows)
    for layer, removed in ((0, 0.75), (2, 0.25)):
        weight = candidate(model, layer, removed)
        expected = divergence_of_positions(model, layer, weight, many_windows)
        assert float(rows[layer, REMOVED.index(removed)]) == pytest.approx(expected, rel=0.1)


def test_estimate_of_the_last_layer_is_the_divergence_of_the_cut_model(
    many_windows: Tensor,
) -> None:
    """Nothing after the last layer combines positions."""
    model = model_of_small_cuts()
    estimate = float(rows_of(model, many_windows)[LAST, REMOVED.index(0.5)])
    teacher = top_log_probs(model, many_windows, BASE["vocab_size"])
    layer_modules(model)[LAST].down.weight.data = candidate(model, LAST, 0.5)
    assert estimate == pytest.approx(
        window_divergences(model, many_windows, teacher).mean().item(), rel=0.1
    )


def test_candidates_are_updated(tmp_path: Path, many_windows: Tensor) -> None:
    model = model_of_small_cuts()
    grams = compute_gram_matrices(model, tokens(64, 12), torch.zeros(64, dtype=torch.int), tmp_path)
    rows, sliced = rows_of(model, many_windows, grams), rows_of(model, many_windows)
    weight = candidate(model, 2, 0.5, grams.of_layer(2))
    expected = divergence_of_positions(model, 2, weight, many_windows)
    column = REMOVED.index(0.5)
    assert float(rows[2, column]) == pytest.approx(expected, rel=0.1)
    assert float(sliced[2, column]) > 1.15 * expected


def test_the_model_is_the_same_afterwards() -> None:
    model, windows = small_model("llama-biased"), tokens(4, 16, seed=3)
    before = copy.deepcopy(model.state_dict())
    rows = rows_of(model, windows)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(rows_of(model, windows), rows)


def test_measured_layers_are_not_measured_again() -> None:
    model, windows = small_model("llama"), tokens(4, 16)
    measured: dict[int, list[float]] = {}
    cached = {0: [1.0] * len(REMOVED), 2: [2.0] * len(REMOVED)}
    rows = measure_sensitivity(
        model, ascending_scores(model), windows, None, cached, measured.__setitem__
    )
    assert sorted(measured) == [1, 3]
    assert rows[0].tolist() == cached[0]
    assert rows[1].tolist() == measured[1]
    assert rows[2].tolist() == cached[2]


def test_an_interrupted_measurement_ends_with_the_same_rows() -> None:
    model, windows = small_model("llama"), tokens(4, 16)
    whole = rows_of(model, windows)
    cached = {0: whole[0].tolist(), 1: whole[1].tolist()}
    rows = measure_sensitivity(
        model, ascending_scores(model), windows, None, cached, lambda *_: None
    )
    assert torch.equal(rows, whole)


class HugeUpdates:
    """Gram matrices whose update overflows: channel 0 is expected from channels of no size."""

    ridge = RIDGE

    def of_layer(self, layer: int, device: torch.device) -> Tensor:
        gram = torch.zeros(CHANNELS, CHANNELS)
        gram[0, 1:] = gram[1:, 0] = 1e30
        return gram


def test_overflowing_candidate_counts_as_the_worst() -> None:
    rows = rows_of(small_model("llama"), tokens(4, 16), HugeUpdates())
    assert rows.tolist() == [[WORST] * len(REMOVED)] * 4
    assert bool(optimal_shares(rows, [CHANNELS] * 4, 60.0).isfinite().all())


def test_model_without_a_finite_loss_is_an_error() -> None:
    model = small_model("llama")
    model.model.layers[2].mlp.down_proj.weight.data[0, -1] = float("inf")
    with pytest.raises(UserError, match="the model's loss is nan"):
        rows_of(model, tokens(4, 16))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3-moe"])
def test_layers_that_run_one_by_one_have_the_same_sensitivity(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = small_model(kind), tokens(6, 16)
    whole = rows_of(model, windows)
    monkeypatch.setattr(activations, "MOST", 0.0)
    monkeypatch.setattr(activations, "SMALL", 0)
    assert torch.equal(rows_of(model, windows), whole)
