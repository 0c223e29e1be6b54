"""Retention by its definition, its interval by resampling the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from adapruner.evaluation.results import RowResult, write_rows
from adapruner.evaluation.retention import measure_retention


def evaluation(folder: Path, tasks: Mapping[str, Sequence[int]]) -> Path:
    """The directory of an evaluation with right (1, True) and wrong (0, False) rows."""
    folder.mkdir()
    for task, right in tasks.items():
        rows = [
            RowResult(id=i, right=bool(r), choice=0, answer=1 - r, margin=0.0)
            for i, r in enumerate(right)
        ]
        write_rows(folder, task, rows)
    return folder


def test_retention_is_the_share_of_right_rows_that_is_kept(tmp_path: Path) -> None:
    dense = evaluation(tmp_path / "dense", {"a": [1, 1, 1, 1, 0, 0], "b": [1, 0], "only": [1]})
    other = evaluation(tmp_path / "other", {"a": [1, 1, 0, 0, 1, 0], "b": [1, 0], "failed": [1]})
    result = measure_retention(dense, other, seed=0)
    assert list(result["tasks"]) == ["a", "b"]
    a = result["tasks"]["a"]
    assert a["dense"] == pytest.approx(4 / 6)
    assert a["model"] == pytest.approx(3 / 6)
    assert a["retention"] == pytest.approx(3 / 4)
    assert (a["rows"], a["fixed"], a["broken"]) == (6, [4], [2, 3])
    b = result["tasks"]["b"]
    assert (b["retention"], b["low"], b["high"]) == (1, 1, 1)
    mean = result["mean"]
    assert mean["dense"] == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert mean["model"] == pytest.approx((3 / 6 + 1 / 2) / 2)
    assert mean["retention"] == pytest.approx(mean["model"] / mean["dense"])
    assert mean["low"] < mean["retention"] < mean["high"]
    assert measure_retention(dense, other, seed=0) == result
    assert measure_retention(dense, other, seed=1) != result


def test_the_interval_is_that_of_resampled_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    right = {name: rng.random(300) < 0.6 for name in "ab"}
    kept = {name: np.where(rng.random(300) < 0.2, ~r, r) for name, r in right.items()}
    dense = evaluation(tmp_path / "dense", {name: r.tolist() for name, r in right.items()})
    other = evaluation(tmp_path / "other", {name: k.tolist() for name, k in kept.items()})
    result = measure_retention(dense, other, seed=0)
    sums = np.zeros((2, 8000))
    for name in "ab":
        drawn = rng.integers(0, 300, (8000, 300))
        before, after = right[name][drawn].mean(1), kept[name][drawn].mean(1)
        sums += before, after
        task = result["tasks"][name]
        expected = np.percentile(after / before, (2.5, 97.5))
        assert [task["low"], task["high"]] == pytest.approx(expected, abs=0.01)
    expected = np.percentile(sums[1] / sums[0], (2.5, 97.5))
    assert [result["mean"]["low"], result["mean"]["high"]] == pytest.approx(expected, abs=0.01)


def test_retention_is_none_where_the_dense_model_has_no_right_row(tmp_path: Path) -> None:
    dense = evaluation(tmp_path / "dense", {"a": [0, 0]})
    other = evaluation(tmp_path / "other", {"a": [1, 0]})
    task = measure_retention(dense, other, seed=0)["tasks"]["a"]
    assert (task["retention"], task["low"], task["high"]) == (None, None, None)
    assert task["fixed"] == [0]
    none = measure_retention(evaluation(tmp_path / "x", {}), evaluation(tmp_path / "y", {}), seed=0)
    assert none == {"tasks": {}, "mean": None}
