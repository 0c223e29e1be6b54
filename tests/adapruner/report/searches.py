"""Small directories of search stages to report on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.pruning.plan import LayerPlan, Params, PruningPlan, Ratio
from adapruner.search.front import front, nearest_to_ideal
from adapruner.search.results import (
    HeldOut,
    SearchResult,
    SelectedTrial,
    Sensitivity,
    Trial,
    Trials,
)

HOSTILE = "<script>alert('x')</script>"


def plan(layers: int) -> PruningPlan:
    """Keeps the first layer and cuts 64 channels, 8 heads and 4 groups of the others."""
    whole = LayerPlan(mlp_channels="0-63", query_heads="0-7")
    cut = LayerPlan(mlp_channels="0-29,31,60-63", query_heads="0-3,6-7")
    return PruningPlan(
        model_type="llama",
        layout="per_layer",
        layers=(whole, *[cut] * (layers - 1)),
        dense=({"mlp_channels": 64, "query_heads": 8, "kv_groups": 4},) * layers,
        protected=(0,),
        ratio=Ratio(requested=0.2, of="blocks", achieved_all=0.2003, achieved_blocks=0.31),
        params=Params(dense=1_000_000, pruned=799_700),
        provenance={},
    )


def trials(total: int, *objectives: str) -> tuple[Trial, ...]:
    """Trials 0 and 1 are the warm starts. All objectives but the first rise with the trials."""
    names = objectives or ("perplexity",)
    return tuple(
        Trial(
            number=i,
            name={0: "fisher-pool", 1: HOSTILE}.get(i, "trial"),
            values=dict(zip(names, values, strict=True)),
            params={"alpha_coarse": i / total, "set_size": 10 + i % 3},
            held_out={n: v + 3 * (i % 2) for n, v in zip(names, values, strict=True)},
        )
        for i, values in enumerate(_values(total, len(names)))
    )


def _values(total: int, objectives: int) -> list[list[float]]:
    return [
        [40 + 30 / (i + 1) + 11 * (i % 3), *[j / 5 + i / 20 + i % 2 for j in range(1, objectives)]]
        for i in range(total)
    ]


def search_result(trials: tuple[Trial, ...], layers: int = 4, **fields: Any) -> SearchResult:
    """The summary of `trials`; `fields` replace its fields."""
    names = tuple(trials[0].values)
    held_out = {n: tuple(t.held_out.values()) for n, t in enumerate(trials) if t.held_out}
    best = min(trials, key=lambda trial: trial.values[names[0]])
    if len(names) > 1:
        best = trials[nearest_to_ideal(held_out)]
    losses = tuple(
        tuple((i + 1) ** -0.5 * share for share in (0.02, 0.05, 0.2)) for i in range(layers)
    )
    values: dict[str, Any] = {
        "objectives": names,
        "objective_tokens": 512,
        "held_out_tokens": 256,
        "dense_values": dict.fromkeys(names, 21.5),
        "study": "adapruner-0",
        "best": SelectedTrial(**best.model_dump(include=set(SelectedTrial.model_fields))),
        "warm_starts": {trial.name: trial.values for trial in trials if trial.name != "trial"},
        "held_out": HeldOut(
            dense_values=dict.fromkeys(names, 21.0),
            values=best.held_out or {},
            warm_starts={},
            front=tuple(front(held_out)),
        ),
        "sensitivity": Sensitivity(removed=(0.25, 0.5, 0.95), losses=losses),
        "trials": len(trials),
    }
    return SearchResult(**values | fields)


def write_search(
    directory: Path, trials: tuple[Trial, ...], layers: int = 4, **fields: Any
) -> Path:
    """The directory of a search stage; `fields` replace fields of the summary."""
    directory.mkdir(parents=True, exist_ok=True)
    plan(layers).write(directory)
    Trials(trials=trials).write(directory)
    search_result(trials, layers, **fields).write(directory)
    return directory
