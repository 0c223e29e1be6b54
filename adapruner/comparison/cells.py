"""What a comparison runs: methods, ratios and layouts, and seeds where a method is random.

A method is a preset, or a variant of one that the comparison defines. A preset with a layout or a
ratio of its own keeps it: it runs once, in place of each layout or ratio of the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from adapruner.config import (
    FinetuneConfig,
    PlanConfig,
    PruningConfig,
    QualityConfig,
    RunConfig,
    Section,
    ServingConfig,
    presets,
    with_preset,
)
from adapruner.config.base import SafeName
from adapruner.config.combinations import check_combination, check_processes
from adapruner.config.parsing import nearest, parse_section
from adapruner.config.presets import Preset, check_preset
from adapruner.config.pruning import RESIDUAL_SUBSETS, Layout
from adapruner.config.search import SEARCHED
from adapruner.importance.metrics import METRICS

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class PruningOverride(Section):
    """Settings of `pruning` at one ratio."""

    protect_first: int | None = Field(None, ge=0, description="first layers left unpruned")
    protect_last: int | None = Field(None, ge=0, description="last layers left unpruned")
    round_to: int | None = Field(None, ge=1, description="MLP widths are multiples of this")


class Variant(Section):
    """A method made of a preset and further settings."""

    method: Annotated[str, AfterValidator(check_preset)] = Field(description="a preset")
    settings: dict[Literal["search", "pruning", "reconstruction", "finetune"], dict[str, Any]] = (
        Field(description="section -> settings in place of the preset's")
    )


class ComparisonConfig(Section):
    """The cells of a comparison: every method at every ratio in every layout."""

    variants: dict[SafeName, Variant] = Field(
        default_factory=dict,
        description="name -> method and settings, such as {flap-uniform: {method: flap, settings: "
        "{pruning: {layout: uniform}}}}",
    )
    methods: tuple[str, ...] = Field(
        default_factory=lambda: tuple(presets()),
        min_length=1,
        description="presets and variants; default: all presets",
    )
    ratios: tuple[Share, ...] = Field((), description="ratios; default: pruning.ratio")
    layouts: tuple[Layout, ...] = Field((), description="layouts; default: pruning.layout")
    at_ratio: dict[float, PruningOverride] = Field(
        default_factory=dict, description="ratio -> settings of pruning at that ratio"
    )
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2), min_length=1, description="seeds of random methods; others run once"
    )
    finetune: bool = Field(False, description="fine-tune every candidate with `finetune` as well")

    @field_validator("variants")
    @classmethod
    def _check_names(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        if both := sorted({*presets()} & {*variants}):
            raise ValueError(f"'{both[0]}' is a preset; use another name")
        return variants

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        names = [*presets(), *info.data.get("variants", {})]
        for name in methods:
            if name not in names:
                raise ValueError(f"'{name}' is no such method{nearest(name, names)}")
        return methods

    @field_validator("methods", "ratios", "layouts", "seeds")
    @classmethod
    def _check_unique(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a value is listed twice")
        return values

    @model_validator(mode="after")
    def _check_overrides(self) -> ComparisonConfig:
        unknown = sorted(set(self.at_ratio) - set(self.ratios))
        if unknown:
            raise ValueError(f"at_ratio has {unknown[0]:g}, which is not one of the ratios")
        return self

    def preset(self, method: str) -> Preset:
        """The preset of a method."""
        variant = self.variants.get(method)
        return presets()[variant.method if variant else method]

    def changes(self, method: str) -> Mapping[str, Mapping[str, Any]]:
        """The settings of a variant by section; empty for a preset."""
        variant = self.variants.get(method)
        return variant.settings if variant else {}  # type: ignore[return-value]

    def own(self, method: str, key: str) -> tuple[Any, ...]:
        """The method's own value of a key of `pruning`, if it has one."""
        changed = self.changes(method).get("pruning", {})
        value = changed.get(key, self.preset(method).setting("pruning", key))
        return () if value is None else (value,)


class CandidateConfig(PlanConfig):
    """The settings that a candidate depends on, beside the shared artifacts."""

    finetune: FinetuneConfig
    quality: QualityConfig

    @model_validator(mode="after")
    def _check_sections(self) -> CandidateConfig:
        check_combination(self.search, self.pruning, self.reconstruction, self.finetune)
        check_processes(self.model, self.finetune)
        return self


@dataclass(frozen=True)
class Cell:
    """One candidate: a method at a ratio in a layout, with a seed."""

    method: str
    ratio: float
    layout: Layout
    seed: int

    @property
    def key(self) -> str:
        """A name of letters, digits and underscores."""
        text = f"{self.method}_{self.ratio:g}_{self.layout}_{self.seed}"
        return "".join(c if c.isalnum() else "_" for c in text)


def cells(config: RunConfig, comparison: ComparisonConfig) -> list[Cell]:
    """All candidates. A method that is not random has one, with the seed of `config`."""
    ratios = comparison.ratios or (config.pruning.ratio,)
    layouts = comparison.layouts or (config.pruning.layout,)
    found = [
        Cell(method, ratio, layout, seed)
        for method in comparison.methods
        for ratio in comparison.own(method, "ratio") or ratios
        for layout in layouts[: 1 if comparison.own(method, "layout") else None]
        for seed in seeds_of(method, config, comparison)
    ]
    order = list(dict.fromkeys([*ratios, *(cell.ratio for cell in found)]))
    return sorted(found, key=lambda cell: (order.index(cell.ratio), layouts.index(cell.layout)))


def seeds_of(method: str, config: RunConfig, comparison: ComparisonConfig) -> Sequence[int]:
    """The seeds that a method runs with."""
    return comparison.seeds if comparison.preset(method).is_random else (config.seed,)


def candidate_config(
    cell: Cell, config: RunConfig, comparison: ComparisonConfig
) -> CandidateConfig:
    """The sections that run `cell`: those of a compression by its method.

    Raises UserError for invalid settings of a variant, and for a layout or a width that the runtime
    of `pruning.target` can't load.
    """
    variant = comparison.variants.get(cell.method)
    preset = variant.method if variant else cell.method
    run = with_preset(config, preset, comparison.changes(cell.method))
    shared = PruningOverride()
    if not comparison.own(cell.method, "ratio"):
        shared = comparison.at_ratio.get(cell.ratio, shared)
    changes = shared.model_dump(exclude_none=True)
    changes |= {
        "ratio": cell.ratio,
        "layout": [*comparison.own(cell.method, "layout"), cell.layout][0],
    }
    where = f"comparison of {cell.method} at ratio {cell.ratio:g}, layout {cell.layout}"
    pruning = parse_section(PruningConfig, run.pruning.model_dump() | changes, where, "pruning")
    finetune = run.finetune
    if not comparison.finetune:
        finetune = finetune.model_copy(update={"method": "none"})
    values = {
        "seed": cell.seed,
        "model": run.model,
        "search": run.search,
        "pruning": pruning,
        "reconstruction": run.reconstruction,
        "finetune": finetune,
        "quality": run.evaluation.quality,
    }
    return parse_section(CandidateConfig, values, where)


def serving(config: RunConfig, comparison: ComparisonConfig) -> ServingConfig:
    """What the dense model is checked against before anything is computed; nothing is exported.

    Raises UserError as `candidate_config`.
    """
    plans = [candidate_config(cell, config, comparison) for cell in cells(config, comparison)]
    # A model that can't have residual subsets is a result of the candidates that ask for them.
    cuts = [plan.pruning for plan in plans if plan.pruning.layout != RESIDUAL_SUBSETS]
    tunings = [plan.finetune for plan in plans]
    return ServingConfig.of(cuts, tunings=tunings, context=config.context)


def uses_reference(plan: PlanConfig) -> bool:
    """Whether the plan uses the random reference subset of the importance table."""
    if plan.search.planner != "importance":
        return False
    metric = plan.search.metric
    return metric == SEARCHED or METRICS[metric].needs.reference
