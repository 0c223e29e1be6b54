"""Layer losses and widths: each is what it says, and the widths have the lowest sum of losses."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapruner.search.objective import EXPECTED, mean_divergence
from adapruner.pruning.sensitivity import measure
from adapruner.pruning.plan import make_plan
from adapruner.pruning.width_profile import REMOVED, removal
from adapruner.pruning.reconstruction.least_squares import apply_and_update
from adapruner.pruning.gram_matrices import gather, updates
from adapruner.models.structures import describe_model
from adapruner.pruning.surgery import narrowed
from adapruner.evaluation.divergence import likeliest
from tests.models import KINDS, small_model, tokens

AT = torch.tensor(REMOVED, dtype=torch.float64)


def test_of_two_layers_the_one_that_loses_a_quarter_as_much_gives_four_times_as_much() -> None:
    found = removal(torch.stack([AT.square(), 4 * AT.square()]), [100, 100], 50.0)
    assert found.tolist() == pytest.approx([0.4, 0.1], abs=1e-6)


def test_a_layer_half_as_wide_gives_half_as_much_for_the_same_loss_of_a_channel() -> None:
    wide, narrow = AT.square(), AT.square() / 2
    found = removal(torch.stack([wide, narrow]), [200, 100], 90.0)
    assert found.tolist() == pytest.approx([0.3, 0.3], abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(
        st.tuples(*[st.floats(0.001, 1)] * len(REMOVED)).map(sorted), min_size=2, max_size=6
    ),
    part=st.floats(0.02, 0.9),
)
def test_what_is_asked_for_is_given_and_a_dearer_layer_gives_no_more(
    steps: list[list[float]], part: float
) -> None:
    widths = torch.tensor([0.0, *REMOVED], dtype=torch.float64).diff()
    losses = (torch.tensor(steps, dtype=torch.float64) * widths).cumsum(1)
    sizes = [64 * (1 + i % 2) for i in range(len(steps))]
    wanted = part * sum(sizes)
    found = removal(losses, sizes, wanted)
    assert float((found * torch.tensor(sizes)).sum()) == pytest.approx(wanted, rel=1e-3, abs=1)
    assert bool(((found > 0) & (found <= REMOVED[-1] + 1e-9)).all())
    dearer = torch.stack([losses[0], 2 * losses[0]])
    cheap, dear = removal(dearer, [64, 64], part * 128).tolist()
    assert dear <= cheap + 1e-6


def test_losses_that_fall_or_are_none_make_no_trouble() -> None:
    flat = torch.zeros(3, len(REMOVED))
    assert removal(flat, [10, 10, 10], 15.0).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    falling = torch.stack([AT, torch.tensor([0.2, 0.1, 0.3, 0.2])])
    assert float(removal(falling, [10, 10], 8.0).sum() * 10) == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_the_divergence_with_that_layer_alone_cut(kind: str) -> None:
    model = small_model(kind)
    before = copy.deepcopy(model.state_dict())
    structures, windows = describe_model(model), tokens(4, 16, seed=3)
    scores = [torch.arange(w.mlp_channels).float() for w in structures.layers]
    noted: dict[int, list[float]] = {}
    found = measure(model, scores, windows, None, 0.1, {}, noted.__setitem__)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.tolist() == [noted[i] for i in range(len(scores))]

    layer, width = 1, REMOVED.index(0.5)
    known = likeliest(model, windows, EXPECTED)
    keep = [
        (range(w.mlp_channels // 2, w.mlp_channels) if i == layer else range(w.mlp_channels),
         range(w.query_heads))
        for i, w in enumerate(structures.layers)
    ]  # fmt: skip
    plan = make_plan(
        structures, keep, layout="per_layer", protected=[], requested=0.1, of="blocks",
        provenance={},
    )  # fmt: skip
    with narrowed(model, plan):
        assert float(found[layer, width]) == pytest.approx(
            mean_divergence(model, windows, known), rel=1e-4, abs=1e-7
        )


def test_candidates_are_updated_as_the_reconstruction_would(tmp_path: Path) -> None:
    model, samples, windows = small_model("llama"), tokens(8, 16), tokens(4, 16, seed=3)
    structures = describe_model(model)
    scores = [torch.arange(w.mlp_channels).float() for w in structures.layers]
    gather(model, samples, tmp_path)
    found = measure(model, scores, windows, tmp_path, 0.05, {}, lambda *_: None)
    known = likeliest(model, windows, EXPECTED)
    keep = [(range(24 if i == 2 else 0, w.mlp_channels), range(w.query_heads))
            for i, w in enumerate(structures.layers)]  # fmt: skip
    plan = make_plan(
        structures, keep, layout="per_layer", protected=[], requested=0.1, of="blocks",
        provenance={},
    )  # fmt: skip
    with narrowed(model, plan, updates(model, tmp_path, 0.05, plan)):
        rehearsed = mean_divergence(model, windows, known)
    with narrowed(model, plan):
        sliced = mean_divergence(model, windows, known)
    apply_and_update(model, plan, samples, 0.05)
    shipped = mean_divergence(model, windows, known)
    assert rehearsed == pytest.approx(shipped, rel=1e-4), "nothing below the cut layer is cut"
    assert float(found[2, REMOVED.index(0.5)]) == pytest.approx(shipped, rel=1e-4)
    assert abs(sliced - shipped) > 0.01 * shipped
    assert updates(model, None, 0.05, plan) == {}


def test_layers_that_were_measured_are_not_measured_again() -> None:
    model, windows = small_model("llama"), tokens(4, 16)
    scores = [torch.arange(w.mlp_channels).float() for w in describe_model(model).layers]
    noted: dict[int, list[float]] = {}
    known = {0: [1.0] * len(REMOVED), 2: [2.0] * len(REMOVED)}
    found = measure(model, scores, windows, None, 0.1, known, noted.__setitem__)
    assert sorted(noted) == [1, 3]
    assert found[0].tolist() == known[0]
    assert found[2].tolist() == known[2]


def test_a_candidate_that_overflows_is_the_worst_and_no_trouble() -> None:
    model, windows = small_model("llama"), tokens(4, 16)
    model.model.layers[2].mlp.down_proj.weight.data[0, -1] = float("inf")
    scores = [torch.arange(w.mlp_channels).float() for w in describe_model(model).layers]
    found = measure(model, scores, windows, None, 0.1, {}, lambda *_: None)
    assert bool(found.isfinite().all())
    assert bool(removal(found, [48] * 4, 60.0).isfinite().all())
