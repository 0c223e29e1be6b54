"""How much of the dense model's accuracy another model keeps, row by row.

Retention of a task is right rows of the model / right rows of the dense model, over the rows both
were asked: 1 is all of it, and guessing is not taken off. Mean retention is the mean of the model's
scores over the tasks / that of the dense model's, as tables of averages compare them.

Intervals are of 95 %, by the paired percentile bootstrap (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, section 13): rows are drawn again with replacement, each with both models'
answers. A row is one of four kinds (right in both, fixed, broken, wrong in both), so that drawing n
rows is one multinomial draw of the kinds' counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)


def compare(dense: Path, other: Path, seed: int) -> dict[str, Any]:
    """Retention of the evaluation in the stage directory `other` against the one in `dense`.

    {"tasks": {task: {"dense", "model": shares of right rows; "retention", "low", "high": the
    share kept and its interval; "rows": how many; "fixed", "broken": ids of the rows that went
    from wrong to right and back}}, "mean": {"dense", "model", "retention", "low", "high"}}. A
    retention is None where the dense model has no row right, "mean" where no task has rows in
    both. Tasks that failed in one of them are left out.
    """
    generator = np.random.default_rng(seed)
    tasks: dict[str, dict[str, Any]] = {}
    drawn: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for name in sorted(_names(dense) & _names(other)):
        before, after = _right(dense, name), _right(other, name)
        ids = [i for i in before if i in after]
        if not ids:
            continue
        fixed = [i for i in ids if after[i] and not before[i]]
        broken = [i for i in ids if before[i] and not after[i]]
        both = sum(before[i] and after[i] for i in ids)
        shares = np.array([both, len(fixed), len(broken)]) / len(ids)
        shares = np.append(shares, max(0.0, 1 - shares.sum()))
        counts = generator.multinomial(len(ids), shares, size=RESAMPLES) / len(ids)
        drawn.append((counts[:, 0] + counts[:, 2], counts[:, 0] + counts[:, 1]))
        scores = ((both + len(broken)) / len(ids), (both + len(fixed)) / len(ids))
        kept = _kept(*scores, *drawn[-1])
        tasks[name] = {**kept, "rows": len(ids), "fixed": fixed, "broken": broken}
    return {"tasks": tasks, "mean": _mean(tasks, drawn) if tasks else None}


def _mean(
    tasks: dict[str, dict[str, Any]],
    drawn: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> dict[str, Any]:
    dense, model = (
        sum(task[key] for task in tasks.values()) / len(tasks) for key in ("dense", "model")
    )
    resampled = np.mean(np.array(drawn), axis=0)
    return _kept(dense, model, resampled[0], resampled[1])


def _kept(
    dense: float,
    model: float,
    dense_drawn: NDArray[np.float64],
    model_drawn: NDArray[np.float64],
) -> dict[str, Any]:
    """Scores, retention and its interval; resamples with no right row of the dense model count out.

    `dense_drawn` and `model_drawn` [resamples] are the two scores in each resample.
    """
    told: dict[str, Any] = {"dense": dense, "model": model}
    if dense == 0:
        return {**told, "retention": None, "low": None, "high": None}
    usable = dense_drawn > 0
    low, high = np.percentile(model_drawn[usable] / dense_drawn[usable], INTERVAL)
    return {**told, "retention": model / dense, "low": float(low), "high": float(high)}


def _names(stage: Path) -> set[str]:
    return {path.stem for path in (stage / "rows").glob("*.json")}


def _right(stage: Path, task: str) -> dict[Any, bool]:
    rows = json.loads((stage / "rows" / f"{task}.json").read_text(encoding="utf-8"))
    return {row["id"]: row["right"] for row in rows}
