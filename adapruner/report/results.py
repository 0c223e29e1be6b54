"""Results that the page, the terminal, the gate and the comparison of runs read from a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapruner.report.format import PERPLEXITY

Report = Mapping[str, Any]
"""The content of report.json."""

MODELS = ("dense", "pruned", "finetuned")
MODEL_NAMES = {"dense": "dense", "pruned": "pruned", "finetuned": "fine-tuned"}
"""Model, as a key of the report -> its name on the page."""


def final_model(report: Report) -> str:
    """The model that the run delivers: fine-tuned, or pruned for a run without fine-tuning."""
    recovery = report["recovery"]
    is_tuned = recovery is not None and recovery.get("loss") is not None
    return "finetuned" if is_tuned and report["metrics"]["finetuned"] else "pruned"


def distinct_models(report: Report) -> tuple[str, ...]:
    """The models of the run; without fine-tuning there are only two."""
    return MODELS if final_model(report) == "finetuned" else MODELS[:2]


def dense_and_final(report: Report, metric: str) -> tuple[float, float] | None:
    """A metric of the dense and of the final model; None unless both have it."""
    dense = (report["metrics"]["dense"] or {}).get(metric)
    final = (report["metrics"][final_model(report)] or {}).get(metric)
    return None if dense is None or final is None else (dense, final)


def headline_metric(report: Report) -> str | None:
    """The first perplexity that the dense and the final model have, else their first metric."""
    names = report["metrics"]["dense"] or {}
    shared = [name for name in names if dense_and_final(report, name)]
    perplexities = [name for name in shared if PERPLEXITY.match(name)]
    return next(iter([*perplexities, *shared]), None)


def retention_of(report: Report, model: str) -> Mapping[str, Any]:
    """`tasks` and `mean` of a model's retention; no tasks and None without an evaluation."""
    empty: Mapping[str, Any] = {"tasks": {}, "mean": None}
    return (report.get("retention") or {}).get(model) or empty


def mean_retention(report: Report) -> float | None:
    """Mean share of the dense model's task scores that the final model keeps."""
    mean = retention_of(report, final_model(report))["mean"]
    return mean["retention"] if mean else None


def perplexity_ratio(report: Report, metric: str) -> float | None:
    """Perplexity of the final model divided by that of the dense model."""
    pair = dense_and_final(report, metric)
    return pair[1] / pair[0] if pair and pair[0] else None


def zero_weights(report: Report) -> int | None:
    """Zeros in the projections of a 2:4 sparse model; None for other layouts."""
    sparsity = report["plan"].get("sparsity")
    return sparsity["zeros"] if sparsity else None


def size_ratio(report: Report) -> float | None:
    """Share of the dense model's parameters that remain."""
    dense, pruned = report["params"]["dense"], report["params"]["pruned"]
    return pruned / dense if dense and pruned is not None else None
