"""The search over calibration samples, importance metrics and layer widths."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from adapruner.config.base import Section
from adapruner.config.choices import METRIC, OneOf

SEARCHED = "searched"
SAMPLERS = ("tpe", "gp", "random")

ObjectiveName = Literal["perplexity", "kl"]
Dimension = Literal["token", "shares", "update", "ridge", "widths", "protection"]
Metric = Annotated[str, OneOf(METRIC, (SEARCHED,))]


class SearchConfig(Section):
    """The Bayesian search, or one importance metric without a search."""

    metric: Metric = Field(
        SEARCHED,
        description="searched: chosen by trials; an importance metric: used without a search",
    )
    trials: int = Field(16, ge=4, description="number of trials, including up to 5 warm starts")
    objective: ObjectiveName = Field(
        "perplexity",
        description="what a trial minimizes on the objective text: its perplexity, or kl, the "
        "divergence from the dense model's next-token distributions",
    )
    sampler: str = Field(
        "tpe",
        description="tpe, gp, random, or PACKAGE.MODULE:NAME of a callable that takes seed=... and "
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
    scaling: Literal["layer_mean", "aligned"] = Field(
        "layer_mean",
        description="how metrics are brought to one scale: divided by their layer mean, or "
        "multiplied by the paper's alignment factors",
    )
    vary: tuple[Dimension, ...] = Field(
        ("token", "shares", "update", "ridge", "widths", "protection"),
        description="further dimensions of the search space: the token metric, the weights of the "
        "domains in the scores, those in the update, the ridge of the update, the layers' widths, "
        "the number of protected layers",
    )
    finalists: int = Field(
        4,
        ge=1,
        description="number of best trials that are evaluated on the held-out text, with the warm "
        "starts",
    )
    storage: str | None = Field(None, description="Optuna storage URL; default: local SQLite")

    @field_validator("sampler")
    @classmethod
    def _check_sampler(cls, sampler: str) -> str:
        if sampler in SAMPLERS or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", sampler):
            return sampler
        raise ValueError(f"expected one of {', '.join(SAMPLERS)}, or PACKAGE.MODULE:NAME")
