"""The search over calibration samples, importance metrics and layer widths."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from adapruner.config.base import Section
from adapruner.config.choices import METRIC, PLANNER, OneOf
from adapruner.config.gates import GatesConfig

SEARCHED = "searched"
SAMPLERS = ("gp", "tpe", "random")

PERPLEXITY, MARGIN = "perplexity", "margin"

ObjectiveName = Literal["perplexity", "kl"]
"""An objective on text."""
AnyObjective = Literal["perplexity", "kl", "margin"]
Weight = Annotated[float, Field(gt=0)]
Dimension = Literal[
    "metrics", "samples", "token", "shares", "update", "ridge", "widths", "protection"
]
Metric = Annotated[str, OneOf(METRIC, (SEARCHED,))]
Fusion = Literal["layer_mean", "model_mean", "learned", "aligned"]


def _parse_objective(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """One error where the union would report one for each of its alternatives."""
    try:
        return parse(value)
    except ValidationError:
        raise ValueError(
            "expected perplexity, kl or margin, weights > 0 of them, such as "
            "{kl: 1.0, margin: 0.5}, or a list of at least two, such as [kl, margin]"
        ) from None


Objective = Annotated[
    AnyObjective
    | Annotated[dict[AnyObjective, Weight], Field(min_length=1)]
    | Annotated[tuple[AnyObjective, ...], Field(min_length=2)],
    WrapValidator(_parse_objective),
]


class SearchConfig(Section):
    """The Bayesian search, or one importance metric without a search."""

    planner: Annotated[str, OneOf(PLANNER)] = Field(
        "importance",
        description="importance: by scores of structures, with or without trials; gates: by gates "
        "that are trained under the budget, without scores; semi_structured: zeros by a score of "
        "each weight, `metric` magnitude or wanda",
    )
    metric: Metric = Field(
        SEARCHED,
        description="searched: chosen by trials; an importance metric: used without a search",
    )
    trials: int = Field(40, ge=4, description="number of trials, including up to 5 warm starts")
    objective: Objective = Field(
        "perplexity",
        description="what a trial minimizes: perplexity or kl, the divergence from the dense "
        "model's next-token distributions, both on the objective text; margin, how "
        "clearly the wrong choices win on rows of `tasks`, from -1 to 1; weights of several, such "
        "as {kl: 1.0, margin: 0.5} (perplexity as its logarithm); or a list of several, such as "
        "[kl, margin], whose Pareto front is searched",
    )
    tasks: tuple[str, ...] = Field(
        (), description="tasks whose margin is part of the objective, by lm-eval's names"
    )
    rows_dir: str | None = Field(
        None,
        description="folder with tasks/<task>.jsonl of train or validation rows of `tasks`, none "
        "of which is evaluated; default: the task's training split on the hub, else its "
        "validation split",
    )
    rows: int = Field(
        256,
        ge=2,
        description="rows of each task in `tasks`, drawn with the seed; one half is for the "
        "trials, the other is held out",
    )
    sampler: str = Field(
        "gp",
        description="gp, tpe, random, or PACKAGE.MODULE:NAME of a callable that takes seed=... and "
        "returns an Optuna sampler",
    )
    samples: Literal["signature", "slots"] = Field(
        "signature",
        description="how a trial selects samples: by directions in the space of the samples' score "
        "signatures, or by one categorical parameter per sample as in the paper",
    )
    set_size: int = Field(
        10, ge=1, description="size of the random reference subset, and number of slots"
    )
    fusion: Fusion = Field(
        "layer_mean",
        description="how metrics are brought to one scale before they are summed: divided by "
        "their mean over the layer or over the model, by that of the layer and a variance that is "
        "learned from the samples' scores, or multiplied by the AdaPruner paper's alignment "
        "factors",
    )
    vary: tuple[Dimension, ...] = Field(
        ("token", "shares", "update", "ridge", "widths", "protection"),
        min_length=1,
        description="dimensions of the search space: metrics (the coarse and the fine metric), "
        "samples (which ones score), token (the token metric), shares (the weights of the domains "
        "in the scores), update (those in the update), ridge (that of the update), widths (the "
        "layers' widths, with pruning.allocation auto), protection (the number of protected "
        "layers)",
    )
    finalists: int = Field(
        4,
        ge=1,
        description="number of best trials that are evaluated on the held-out text, with the warm "
        "starts; with several objectives, trials that are spread along the front",
    )
    parallel: int = Field(
        1,
        ge=1,
        le=1024,
        description="number of trials that are chosen at a time, so that as many workers can "
        "evaluate them at once (`adapruner work`); the plan depends on it, and not on the workers",
    )
    gates: GatesConfig = Field(
        GatesConfig(), description="the training of gates, for `planner: gates`"
    )
    storage: str | None = Field(None, description="Optuna storage URL; default: local SQLite")

    @field_validator("sampler")
    @classmethod
    def _check_sampler(cls, sampler: str) -> str:
        if sampler in SAMPLERS or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", sampler):
            return sampler
        raise ValueError(f"expected one of {', '.join(SAMPLERS)}, or PACKAGE.MODULE:NAME")

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        if isinstance(self.objective, tuple) and len(self.objectives) < len(self.objective):
            raise ValueError("objective lists a name twice")
        if isinstance(self.objective, dict) and {"perplexity", "kl"} <= set(self.objectives):
            raise ValueError("objective has weights of perplexity and of kl; choose one of them")
        if MARGIN in self.objectives and not self.tasks:
            raise ValueError("objective margin needs search.tasks; name some")
        if self.tasks and MARGIN not in self.objectives:
            raise ValueError(
                "search.tasks are read by the objective margin alone; set objective to margin, to "
                "weights or to a list with it, or leave out tasks"
            )
        return self

    @property
    def is_searched(self) -> bool:
        """Whether there are trials."""
        return self.planner == "importance" and self.metric == SEARCHED

    @property
    def objectives(self) -> dict[str, float]:
        """Objective -> its weight, which is 1 without weights."""
        if isinstance(self.objective, dict):
            return cast(dict[str, float], self.objective)
        names = self.objective if isinstance(self.objective, tuple) else (self.objective,)
        return dict.fromkeys(names, 1.0)

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The names of a trial's values: `kl`; with weights one, `1 kl + 0.5 margin`."""
        if isinstance(self.objective, dict):
            return (" + ".join(f"{weight:g} {name}" for name, weight in self.objective.items()),)
        return tuple(self.objectives)
