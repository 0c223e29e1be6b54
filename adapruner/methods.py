"""Methods by name: each is a set of settings of the same engine.

In a file, `method: fisher` gives the preset's settings as defaults; what the sections spell wins.
Formulas and their sources are in `scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapruner.config import ReconstructionConfig, RunConfig, SearchConfig, Section
from adapruner.errors import UserError
from adapruner.parsing import nearest

Settings = dict[str, dict[str, Any]]

SPELT: dict[str, tuple[type[Section], tuple[str, ...]]] = {
    "search": (SearchConfig, ("metric", "samples", "scaling", "vary")),
    "reconstruction": (ReconstructionConfig, ("method",)),
}
"""What every preset spells, so that one replaces another: section -> its class and the keys."""


@dataclass(frozen=True)
class Method:
    """A preset. One that is `random` depends on the seed, beyond what the pool does."""

    summary: str
    settings: Settings
    random: bool = False


def _method(summary: str, search: dict[str, Any], update: str, *, random: bool = False) -> Method:
    settings = _ours()
    settings["search"] |= search
    settings["reconstruction"] |= {"method": update}
    return Method(summary, settings, random)


def _ours() -> Settings:
    return {
        section: {key: kind.model_fields[key].default for key in keys}
        for section, (kind, keys) in SPELT.items()
    }


_PAPER = {"samples": "slots", "scaling": "aligned", "vary": ()}

METHODS: dict[str, Method] = {
    "adapruner": Method("ours, the default: the searched score, with the update", _ours(), True),
    "adapruner-paper": _method(
        "the paper's space: 10 samples, alphas, alignment factors (arXiv 2503.06184)",
        _PAPER, "none", random=True,
    ),
    "fisher": _method("sum of squared w * gradient over the whole pool", {"metric": "fisher"},
                      "none"),
    "flap": _method("fluctuation score, adaptive widths, bias compensation (arXiv 2312.11983)",
                    {"metric": "flap"}, "bias"),
    "wanda-sp": _method("|weight| * norm of its input (arXiv 2306.11695), by structure",
                        {"metric": "wanda"}, "none"),
    "llm-pruner-vector": _method(
        "LLM-Pruner, vector-wise, random samples (arXiv 2305.11627)",
        {"metric": "vector"}, "none", random=True,
    ),
    "llm-pruner-element1": _method(
        "LLM-Pruner, element-wise of first order, random samples",
        {"metric": "element1"}, "none", random=True,
    ),
    "llm-pruner-element2": _method(
        "LLM-Pruner, element-wise of second order, random samples",
        {"metric": "element2"}, "none", random=True,
    ),
    "llm-pruner-mixed": _method(
        "LLM-Pruner, element-wise of both orders, random samples",
        {"metric": "mixed"}, "none", random=True,
    ),
    "magnitude": _method("L2 norm of the coupled weights", {"metric": "magnitude"}, "none"),
    "random": _method("structures drawn by the seed", {"metric": "random"}, "none", random=True),
}  # fmt: skip


def with_method(config: RunConfig, name: str) -> RunConfig:
    """`config` with the settings of the preset `name` in place of its own.

    Raises UserError when there is no such preset.
    """
    if name not in METHODS:
        raise UserError(f"method '{name}' is not known{nearest(name, list(METHODS))}")
    values = config.model_dump()
    for section, settings in METHODS[name].settings.items():
        values[section] |= settings
    return RunConfig.model_validate(values | {"method": name})


def filled_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's values with what its preset says where a section does not spell it.

    Values that are wrong are left for their own checks to find.
    """
    filled = dict(values)
    name = values.get("method", RunConfig.model_fields["method"].default)
    method = METHODS.get(name) if isinstance(name, str) else None
    for section, settings in method.settings.items() if method else ():
        given = filled.get(section, {})
        if isinstance(given, SPELT[section][0]):
            given = given.model_dump(exclude_unset=True)
        if isinstance(given, Mapping):
            filled[section] = settings | dict(given)
    return filled


def refuse_unknown(name: str) -> None:
    """Raises ValueError when there is no such preset."""
    if name not in METHODS:
        raise ValueError(f"no such method{nearest(name, list(METHODS))}")
