"""Retention: the share of the dense model's accuracy that another model keeps, row by row.

Retention of a task is the model's right rows / the dense model's right rows, over the rows that
both answered; the accuracy of guessing is not subtracted. Mean retention is the mean of the model's
scores over the tasks / the mean of the dense model's scores, as in tables of averages.

Intervals are 95 % paired percentile bootstrap intervals (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, section 13): rows are resampled with replacement, each with both models'
answers. A row is of one of four kinds (right in both, fixed, broken, wrong in both), so that
resampling n rows is one multinomial draw of the kinds' counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from adapruner.evaluation.results import RowResult, read_rows

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)

Scores = NDArray[np.float64]


class Kept(TypedDict):
    """Both models' scores, and the share kept with its interval: None if the dense score is 0."""

    dense: float
    model: float
    retention: float | None
    low: float | None
    high: float | None


class TaskRetention(Kept):
    """A task's retention over `rows` rows.

    `fixed` and `broken` list the ids of the rows that went from wrong to right and from right to
    wrong.
    """

    rows: int
    fixed: list[int]
    broken: list[int]


class Retention(TypedDict):
    """Retention by task, and of the mean score: None where no task has rows in both evaluations."""

    tasks: dict[str, TaskRetention]
    mean: Kept | None


def measure_retention(dense: Path, other: Path, seed: int) -> Retention:
    """Retention of the evaluation in the directory `other` relative to the one in `dense`.

    Tasks that failed in one of them are left out.
    """
    generator = np.random.default_rng(seed)
    tasks: dict[str, TaskRetention] = {}
    resampled: list[tuple[Scores, Scores]] = []
    before, after = read_rows(dense), read_rows(other)
    for name in sorted(before.keys() & after.keys()):
        right, right_after = _right(before[name]), _right(after[name])
        ids = [i for i in right if i in right_after]
        if not ids:
            continue
        fixed = [i for i in ids if right_after[i] and not right[i]]
        broken = [i for i in ids if right[i] and not right_after[i]]
        both = sum(right[i] and right_after[i] for i in ids)
        resampled.append(_resample((both, len(fixed), len(broken)), len(ids), generator))
        scores = ((both + len(broken)) / len(ids), (both + len(fixed)) / len(ids))
        kept = _kept(scores, resampled[-1])
        tasks[name] = {**kept, "rows": len(ids), "fixed": fixed, "broken": broken}
    return {"tasks": tasks, "mean": _mean(tasks, resampled) if tasks else None}


def _right(rows: list[RowResult]) -> dict[int, bool]:
    return {row["id"]: row["right"] for row in rows}


def _resample(
    counts: tuple[int, int, int], rows: int, generator: np.random.Generator
) -> tuple[Scores, Scores]:
    """Both models' scores in each resample, [RESAMPLES].

    `counts` are the numbers of rows that are right in both, fixed and broken.
    """
    shares = np.array(counts) / rows
    shares = np.append(shares, max(0.0, 1 - shares.sum()))
    drawn = generator.multinomial(rows, shares, size=RESAMPLES) / rows
    return drawn[:, 0] + drawn[:, 2], drawn[:, 0] + drawn[:, 1]


def _mean(tasks: dict[str, TaskRetention], resampled: list[tuple[Scores, Scores]]) -> Kept:
    dense = sum(task["dense"] for task in tasks.values()) / len(tasks)
    model = sum(task["model"] for task in tasks.values()) / len(tasks)
    means = np.mean(np.array(resampled), axis=0)
    return _kept((dense, model), (means[0], means[1]))


def _kept(scores: tuple[float, float], resampled: tuple[Scores, Scores]) -> Kept:
    """Retention and its interval, from both models' scores and their scores in each resample.

    Resamples in which the dense model has no right row are left out.
    """
    dense, model = scores
    if dense == 0:
        return {"dense": dense, "model": model, "retention": None, "low": None, "high": None}
    usable = resampled[0] > 0
    low, high = np.percentile(resampled[1][usable] / resampled[0][usable], INTERVAL)
    return {
        "dense": dense,
        "model": model,
        "retention": model / dense,
        "low": float(low),
        "high": float(high),
    }
