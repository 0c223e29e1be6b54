"""The widths of the width profile have the lowest sum of sensitivities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapruner.pruning.allocation.width_profile import REMOVED, optimal_shares

AT = torch.tensor(REMOVED, dtype=torch.float64)


def test_layer_with_a_quarter_of_the_sensitivity_loses_four_times_the_channels() -> None:
    shares = optimal_shares(torch.stack([AT.square(), 4 * AT.square()]), [100, 100], 50.0)
    assert shares.tolist() == pytest.approx([0.4, 0.1], abs=1e-6)


def test_layer_half_as_wide_loses_the_same_share_at_equal_cost_per_channel() -> None:
    wide, narrow = AT.square(), AT.square() / 2
    shares = optimal_shares(torch.stack([wide, narrow]), [200, 100], 90.0)
    assert shares.tolist() == pytest.approx([0.3, 0.3], abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(
        st.tuples(*[st.floats(0.001, 1)] * len(REMOVED)).map(sorted), min_size=2, max_size=6
    ),
    part=st.floats(0.02, 0.9),
)
def test_requested_channels_are_removed_and_a_more_sensitive_layer_loses_no_more(
    steps: list[list[float]], part: float
) -> None:
    widths = torch.tensor([0.0, *REMOVED], dtype=torch.float64).diff()
    losses = (torch.tensor(steps, dtype=torch.float64) * widths).cumsum(1)
    sizes = [64 * (1 + i % 2) for i in range(len(steps))]
    requested = part * sum(sizes)
    shares = optimal_shares(losses, sizes, requested)
    assert float((shares * torch.tensor(sizes)).sum()) == pytest.approx(requested, rel=1e-3, abs=1)
    assert bool(((shares > 0) & (shares <= REMOVED[-1] + 1e-9)).all())
    costlier = torch.stack([losses[0], 2 * losses[0]])
    cheap, costly = optimal_shares(costlier, [64, 64], part * 128).tolist()
    assert costly <= cheap + 1e-6


def test_flat_or_falling_sensitivities_still_meet_the_request() -> None:
    flat = torch.zeros(3, len(REMOVED))
    assert optimal_shares(flat, [10, 10, 10], 15.0).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    falling = torch.stack([AT, torch.tensor([0.2, 0.1, 0.3, 0.2])])
    assert float(optimal_shares(falling, [10, 10], 8.0).sum() * 10) == pytest.approx(8, abs=0.1)
