"""What a search leaves: the plan that held-out text chose, the trials, and a summary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from adapruner.pruning import plan
from adapruner.pruning.plan import PruningPlan
from adapruner.importance.scores import Recipe

TRIAL_SECONDS = "trial_seconds.json"

Planned = Callable[[Recipe, dict[str, Any]], PruningPlan]


class Final(NamedTuple):
    """What the held-out text said: of the dense model, and by number of the judged trials."""

    dense: float
    values: dict[int, float]


def write(
    trials: list[Any],
    final: Final,
    planned: Planned,
    provenance: dict[str, Any],
    summary: dict[str, Any],
    out: Path,
) -> None:
    """Writes `plan.json` of the trial with the lowest held-out value, `trials.json`,
    `summary.json` with `summary` in it, and the seconds of each trial to `out`."""
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(trials):
        lowest = min(trial.value, rows[-1]["best_so_far"]) if rows else trial.value
        rows.append(
            {
                "number": number,
                "name": trial.user_attrs["name"],
                "value": trial.value,
                "held_out": final.values.get(number),
                "state": "complete",
                "params": trial.params,
                "best_so_far": lowest,
            }
        )
    chosen = min(final.values, key=lambda number: (final.values[number], number))
    recipe = Recipe.model_validate_json(trials[chosen].user_attrs["recipe"])
    origin = {"trial": chosen, "recipe": recipe.model_dump(mode="json")}
    planned(recipe, provenance | origin).write(out / plan.FILE)
    best = {key: rows[chosen][key] for key in ("number", "name", "value", "held_out")}
    warm = [row for row in rows if row["name"] != "trial"]
    found = {
        "best": best,
        "warm_starts": {row["name"]: row["value"] for row in warm},
        "held_out": {
            "dense_value": final.dense,
            "value": best["held_out"],
            "warm_starts": {row["name"]: row["held_out"] for row in warm},
        },
        "trials": len(rows),
    }
    _dump(rows, out / "trials.json")
    _dump(summary | found, out / "summary.json")
    _dump([trial.user_attrs["seconds"] for trial in trials], out / TRIAL_SECONDS)


def _dump(value: Any, file: Path) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
