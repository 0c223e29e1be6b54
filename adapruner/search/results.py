"""The files of a search: the selected plan, the trials, and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from optuna.trial import FrozenTrial
from pydantic import Field

from adapruner.config.search import PERPLEXITY
from adapruner.files import Artifact, Record, write_json
from adapruner.pruning.plan import PruningPlan
from adapruner.search.front import Values

NamedValues = dict[str, float]
"""Objective, named as in `SearchConfig.objective_names` -> its value; lower is better."""

TRIAL_SECONDS = "trial_seconds.json"


class Trial(Record):
    """One evaluated recipe. `held_out` are its values on the held-out text, where evaluated.

    A trial that was stopped was evaluated on its first `windows` of the objective text; its value
    is estimated from them.
    """

    number: int
    name: str
    values: NamedValues
    held_out: NamedValues | None = None
    state: Literal["complete", "stopped"] = "complete"
    windows: int | None = None
    params: dict[str, Any] = Field(default_factory=dict)


class Trials(Artifact):
    """All trials of a search, in their order."""

    FILE: ClassVar[str] = "trials.json"

    trials: tuple[Trial, ...]


class SelectedTrial(Record):
    """The trial whose plan was selected."""

    number: int
    name: str
    values: NamedValues
    held_out: NamedValues | None = None


class HeldOut(Record):
    """Values on the held-out text: of the dense model, the selected trial and the warm starts.

    `front` are the numbers of the trials that no other one dominates there.
    """

    dense_values: NamedValues
    values: NamedValues
    warm_starts: dict[str, NamedValues]
    front: tuple[int, ...]


class Sensitivity(Record):
    """`losses[layer][i]`: divergence in nats per token with `removed[i]` of that layer cut."""

    removed: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]


class SearchResult(Artifact):
    """The summary of a search, or of an importance metric that was used without one."""

    FILE: ClassVar[str] = "search.json"

    objectives: tuple[str, ...]
    objective_tokens: int
    held_out_tokens: int | None = None
    dense_values: NamedValues
    study: str | None = None
    best: SelectedTrial
    warm_starts: dict[str, NamedValues]
    held_out: HeldOut | None = None
    sensitivity: Sensitivity | None = None
    trials: int


def named(names: Sequence[str], values: Sequence[float]) -> NamedValues:
    """The values by the names of their objectives."""
    return dict(zip(names, values, strict=True))


def trial_rows(
    trials: Sequence[FrozenTrial], names: Sequence[str], held_out: Mapping[int, Values]
) -> tuple[Trial, ...]:
    """The trials with values by name; `held_out` maps trial numbers to held-out values."""
    return tuple(
        Trial(
            number=number,
            name=trial.user_attrs["name"],
            values=named(names, trial.values),
            held_out=named(names, held_out[number]) if number in held_out else None,
            state="stopped" if trial.user_attrs["stopped"] else "complete",
            windows=trial.user_attrs["windows"],
            params=trial.params,
        )
        for number, trial in enumerate(trials)
    )


def write_single_plan(
    out: Path,
    plan: PruningPlan,
    name: str,
    perplexities: tuple[float, float],
    tokens: int,
    seconds: dict[str, float],
) -> None:
    """Writes what a search writes, of a plan that is made without trials: one trial, `name`.

    `perplexities` are those of the dense and of the pruned model, on `tokens` of objective text.
    """
    dense, values = ({PERPLEXITY: value} for value in perplexities)
    result = SearchResult(
        objectives=(PERPLEXITY,),
        objective_tokens=tokens,
        dense_values=dense,
        best=SelectedTrial(number=0, name=name, values=values),
        warm_starts={name: values},
        trials=1,
    )
    write_results(out, plan, (Trial(number=0, name=name, values=values),), result, [seconds])


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
