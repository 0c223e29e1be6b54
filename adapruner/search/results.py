"""The files of a search: the selected plan, the trials, and a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from optuna.trial import FrozenTrial
from pydantic import Field

from adapruner.files import Artifact, Record, write_json
from adapruner.pruning.plan import PruningPlan

TRIAL_SECONDS = "trial_seconds.json"


class Trial(Record):
    """One evaluated recipe. `held_out` is its value on the held-out text, where evaluated.

    A trial that was stopped was evaluated on its first `windows` of the objective text; its value
    is estimated from them.
    """

    number: int
    name: str
    value: float
    held_out: float | None = None
    state: Literal["complete", "stopped"] = "complete"
    windows: int | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    best_so_far: float


class Trials(Artifact):
    """All trials of a search, in their order."""

    FILE: ClassVar[str] = "trials.json"

    trials: tuple[Trial, ...]


class SelectedTrial(Record):
    """The trial whose plan was selected."""

    number: int
    name: str
    value: float
    held_out: float | None = None


class HeldOut(Record):
    """Values on the held-out text: of the dense model, the selected trial and the warm starts."""

    dense_value: float
    value: float
    warm_starts: dict[str, float | None]


class Sensitivity(Record):
    """`losses[layer][i]`: divergence in nats per token with `removed[i]` of that layer cut."""

    removed: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]


class SearchResult(Artifact):
    """The summary of a search, or of an importance metric that was used without one."""

    FILE: ClassVar[str] = "search.json"

    objective: str
    objective_tokens: int
    held_out_tokens: int | None = None
    dense_value: float
    study: str | None = None
    best: SelectedTrial
    warm_starts: dict[str, float]
    held_out: HeldOut | None = None
    sensitivity: Sensitivity | None = None
    trials: int


def trial_rows(trials: list[FrozenTrial], held_out: dict[int, float]) -> tuple[Trial, ...]:
    """The completed trials of a study; `held_out` maps trial numbers to held-out values."""
    rows: list[Trial] = []
    for number, trial in enumerate(trials):
        assert trial.value is not None
        lowest = min(trial.value, rows[-1].best_so_far) if rows else trial.value
        rows.append(
            Trial(
                number=number,
                name=trial.user_attrs["name"],
                value=trial.value,
                held_out=held_out.get(number),
                state="stopped" if trial.user_attrs["stopped"] else "complete",
                windows=trial.user_attrs["windows"],
                params=trial.params,
                best_so_far=lowest,
            )
        )
    return tuple(rows)


def write_results(
    out: Path,
    plan: PruningPlan,
    trials: tuple[Trial, ...],
    result: SearchResult,
    seconds: list[dict[str, float]],
) -> None:
    """Writes `plan.json`, `trials.json`, `search.json` and the seconds of each trial to `out`."""
    plan.write(out)
    Trials(trials=trials).write(out)
    result.write(out)
    write_json(out / TRIAL_SECONDS, seconds)
