"""Methods by name: each is a set of defaults of the same engine.

In a file, `method: fisher` sets the defaults of that preset; values in the sections override them.
Every preset sets the keys of `_KEYS`, and may set more: then it has a layout, a ratio or a recovery
of its own. The presets of single metrics follow from the registry of importance metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from adapruner.config.choices import METRIC, table
from adapruner.config.parsing import nearest
from adapruner.config.pruning import (
    RESIDUAL_SUBSETS,
    SEMI_STRUCTURED,
    SEMI_STRUCTURED_VALUES,
    ReconstructionConfig,
)
from adapruner.config.recovery import GROUPED
from adapruner.config.search import SearchConfig

DEFAULT = "adapruner"
UPDATED = "+update"
"""Ending of the names of methods with the default's reconstruction."""

Settings = dict[str, dict[str, Any]]

_KEYS: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "search": (SearchConfig, ("planner", "metric", "samples", "fusion", "vary", "sampler")),
    "reconstruction": (ReconstructionConfig, ("method",)),
}
"""Section -> its class and the keys that every preset sets."""


_AST: Settings = {
    "pruning": {"layout": SEMI_STRUCTURED}
    | {name: allowed[0] for name, allowed in SEMI_STRUCTURED_VALUES.items()},
    "finetune": {"method": "ast", "loss": "both", "learning_rate": 1e-4},
}
"""The settings of 2:4 sparsity and its training."""

_SUBSETS = {
    "layout": RESIDUAL_SUBSETS,
    "target": "transformers",
    "attention": "none",
    "experts": "channels",
    "allocation": "auto",
}
"""The settings of `pruning` that subsets of the residual stream need."""


@dataclass(frozen=True)
class Preset:
    """A method. `is_random`: the result depends on the seed, beyond the draw of the pool."""

    summary: str
    settings: Settings
    is_random: bool

    def setting(self, section: str, key: str) -> Any:
        """The value of a key; None where the preset does not set it."""
        return self.settings.get(section, {}).get(key)


@cache
def presets() -> dict[str, Preset]:
    """Name -> preset: the searched methods, then one for each metric that has a preset name."""
    paper = {
        "samples": "slots",
        "fusion": "aligned",
        "vary": ("metrics", "samples"),
        "sampler": "tpe",  # a Gaussian process has no use for one category per sample
    }
    result = {
        DEFAULT: Preset(
            "default: searched importance with least-squares update", _settings(), True
        ),
        "adapruner-paper": Preset(
            "the paper's search space: 10 samples, alphas, alignment factors (arXiv 2503.06184)",
            _settings(paper, "none"),
            True,
        ),
    }
    for name, metric in table(METRIC).items():
        if metric.preset is not None:
            settings = _settings({"metric": name}, metric.reconstruction)
            result[metric.preset] = Preset(metric.summary, settings, metric.is_random)
    result["saap"] = _saap()
    result |= _updated(result)
    result["disp-llm"] = Preset(
        "DISP-LLM: blocks with residual dimensions and channels by trained gates (arXiv "
        "2410.11988)",
        _settings({"planner": "gates"}, "none") | {"pruning": _SUBSETS},
        True,
    )
    result["ast"] = Preset(
        "2:4 masks by magnitude; trained with their weights where it is fine-tuned "
        "(arXiv 2407.20584)",
        _settings({"planner": SEMI_STRUCTURED, "metric": "magnitude"}, "none") | _AST,
        False,
    )
    return result


def _saap() -> Preset:
    """All parts of SAAP, see docs/saap.md."""
    metric = table(METRIC)["saap"]
    settings = _settings({"metric": "saap", "fusion": "learned"}, "none")
    # Widths that are multiples of a group, so that all projections are tuned in 4 bit.
    settings["pruning"] = {"layout": "per_layer", "allocation": "fluctuation", "round_to": 32}
    settings["finetune"] = {"method": GROUPED}
    summary = "SAAP: fused importance, widths by its fluctuation, 4-bit tuning (arXiv 2412.15127)"
    return Preset(summary, settings, metric.is_random)


def _updated(plain: Mapping[str, Preset]) -> dict[str, Preset]:
    """The other methods with the default's reconstruction, so that only their scores differ."""
    update = _settings()["reconstruction"]
    return {
        name + UPDATED: Preset(
            f"{name} with {update['method'].replace('_', '-')} update",
            preset.settings | {"reconstruction": update},
            preset.is_random,
        )
        for name, preset in plain.items()
        if name != DEFAULT
    }


def apply_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's values with the defaults of its preset where a section does not set them.

    Invalid values are left for validation.
    """
    completed = dict(values)
    name = values.get("method", DEFAULT)
    preset = presets().get(name) if isinstance(name, str) else None
    for section, defaults in preset.settings.items() if preset else ():
        section_values = completed.get(section, {})
        if isinstance(section_values, BaseModel):
            section_values = section_values.model_dump(exclude_unset=True)
        if isinstance(section_values, Mapping):
            completed[section] = defaults | dict(section_values)
    return completed


def check_preset(name: str) -> str:
    """`name`. Raises ValueError when there is no such preset."""
    if name not in presets():
        raise ValueError(f"no such method{nearest(name, list(presets()))}")
    return name


def _settings(search: Mapping[str, Any] | None = None, method: str | None = None) -> Settings:
    """The values of all preset keys: the defaults, with these replaced."""
    settings: Settings = {
        section: {key: kind.model_fields[key].default for key in keys}
        for section, (kind, keys) in _KEYS.items()
    }
    settings["search"] |= search or {}
    if method is not None:
        settings["reconstruction"]["method"] = method
    return settings
