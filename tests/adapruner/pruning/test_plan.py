"""Plans: ranges of indices, and the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapruner.errors import UserError
from adapruner.models.structures import describe_model
from adapruner.pruning.plan import PruningPlan, format_ranges, kept_groups, parse_ranges
from tests.adapruner.pruning.plans import plan_for
from tests.models import small_model


@given(st.sets(st.integers(0, 300), min_size=1))
def test_ranges_of_indices_parse_back(indices: set[int]) -> None:
    assert parse_ranges(format_ranges(sorted(indices))) == sorted(indices)


@pytest.mark.parametrize("text", ["", "1-", "3-1", "4,2", "a", "1-2-3", "2,2"])
def test_invalid_ranges_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_ranges(text)


def test_plan_reads_back_and_an_invalid_edit_is_refused(tmp_path: Path) -> None:
    plan = plan_for(small_model("llama"), "ragged")
    plan.write(tmp_path)
    assert PruningPlan.read(tmp_path) == plan
    file = tmp_path / PruningPlan.FILE
    file.write_text(file.read_text().replace('"layout"', '"lay-out"'))
    with pytest.raises(UserError, match=r"plan\.json' is not valid: 'lay"):
        PruningPlan.read(tmp_path)


def test_kv_groups_follow_their_query_heads() -> None:
    dense = describe_model(small_model("llama")).layers[0]
    assert kept_groups(dense, [0, 1]) == [0]
    assert kept_groups(dense, [1, 3]) == [0, 1]
