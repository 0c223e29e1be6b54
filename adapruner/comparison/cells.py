"""What a comparison runs: methods, ratios and layouts, and seeds where a method is random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from adapruner.config import CandidateConfig, RunConfig, Section
from adapruner.config import FinetuneConfig, ModelConfig, PlanConfig, QualityConfig, presets, with_preset
from adapruner.config.presets import check_preset

Share = Annotated[float, Field(gt=0, lt=1)]
Layout = Literal["per_layer", "uniform"]


class PruningChange(Section):
    """Settings of `pruning` that one ratio has for itself."""

    protect_first: int | None = Field(None, ge=0)
    protect_last: int | None = Field(None, ge=0)
    round_to: int | None = Field(None, ge=1)


class ComparisonConfig(Section):
    """The cells of a comparison: every method at every ratio in every layout."""

    methods: tuple[str, ...] = Field(tuple(presets()), min_length=1)
    ratios: tuple[Share, ...] = Field((), description="default: pruning.ratio")
    layouts: tuple[Layout, ...] = Field((), description="default: pruning.layout")
    at_ratio: dict[float, PruningChange] = Field(
        default_factory=dict, description="ratio -> what replaces settings of pruning there"
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0, 1, 2), min_length=1, description="of methods that are random; others run once"
    )
    finetune: bool = Field(False, description="fine-tune every candidate by `finetune` as well")

    @field_validator("methods")
    @classmethod
    def _methods_are_known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for name in methods:
            check_preset(name)
        return methods

    @field_validator("methods", "ratios", "layouts", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("one of them is named twice")
        return values

    @model_validator(mode="after")
    def _changes_are_of_ratios(self) -> ComparisonConfig:
        unknown = sorted(set(self.at_ratio) - set(self.ratios))
        if unknown:
            raise ValueError(f"at_ratio names {unknown[0]:g}, which is not one of its ratios")
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
    return [
        Cell(method, ratio, layout, seed)
        for ratio in comparison.ratios or (config.pruning.ratio,)
        for layout in comparison.layouts or (config.pruning.layout,)
        for method in comparison.methods
        for seed in seeds_of(method, config, comparison)
    ]


def seeds_of(method: str, config: RunConfig, comparison: ComparisonConfig) -> Sequence[int]:
    return comparison.seeds if presets()[method].random else (config.seed,)


def settings_of(cell: Cell, config: RunConfig, comparison: ComparisonConfig) -> CandidateConfig:
    """The sections that run `cell`: those of a compression by its method."""
    own = with_preset(config, cell.method)
    change = comparison.at_ratio.get(cell.ratio, PruningChange()).model_dump(exclude_none=True)
    changed = change | {"ratio": cell.ratio, "layout": cell.layout}
    pruning = own.pruning.model_copy(update=changed)
    finetune = own.finetune
    if not comparison.finetune:
        finetune = finetune.model_copy(update={"method": "none"})
    return CandidateConfig(
        seed=cell.seed, model=own.model, search=own.search, pruning=pruning,
        reconstruction=own.reconstruction, finetune=finetune, quality=own.evaluation.quality,
    )  # fmt: skip


def draws_samples(cell: Cell) -> bool:
    """Whether the method looks at a reference subset, which is drawn by the seed."""
    return presets()[cell.method].random and cell.method != "random"
