"""Signatures select samples within each domain."""

from __future__ import annotations

import pytest
import torch

from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceTable
from adapruner.search.signatures import DIRECTIONS, Signatures
from tests.models import small_model, tokens

DOMAIN = (0,) * 8 + (1,) * 4


@pytest.fixture(scope="module")
def table() -> ImportanceTable:
    return importance_table(small_model("llama"), tokens(12, 16), [0, 3], DOMAIN)


def test_direction_selects_the_samples_furthest_along_it(table: ImportanceTable) -> None:
    signatures = Signatures.of(table)
    assert signatures.components.shape == (12, DIRECTIONS)
    chosen = signatures.furthest([1.0, 0.0], 6)
    along = signatures.components[:, 0]
    for domain in (0, 1):
        members = [n for n in range(12) if DOMAIN[n] == domain]
        inside = [n for n in members if n in chosen]
        outside = [n for n in members if n not in chosen]
        assert len(inside) == len(members) // 2, "each domain has its share of the pool"
        assert along[inside].min() >= along[outside].max()
    opposite = signatures.furthest([-1.0, 0.0], 6)
    assert set(opposite) == set(range(12)) - set(chosen)
    assert torch.equal(Signatures.of(table).components, signatures.components), "signs are fixed"


def test_all_samples_are_chosen_in_their_order(table: ImportanceTable) -> None:
    assert Signatures.of(table).furthest([0.0, 0.0], 12) == tuple(range(12))


def test_domains_themselves_have_no_direction(table: ImportanceTable) -> None:
    components = Signatures.of(table).components
    for domain in (0, 1):
        members = [n for n in range(12) if DOMAIN[n] == domain]
        assert components[members].mean(0).abs().max() < 1e-4
