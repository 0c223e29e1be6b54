"""One run: all sections together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, field_validator, model_validator

from adapruner.config.base import SafeName, Section, check_shares
from adapruner.config.calibration import CalibrationConfig
from adapruner.config.combinations import check_combination, check_processes
from adapruner.config.evaluation import EvaluationConfig
from adapruner.config.export import ExportConfig, ServingConfig, with_4bit_export
from adapruner.config.model import ModelConfig
from adapruner.config.parsing import parse_section
from adapruner.config.presets import DEFAULT, apply_defaults, check_preset, presets
from adapruner.config.pruning import (
    AFTER_TRIALS,
    RESIDUAL_SUBSETS,
    PruningConfig,
    ReconstructionConfig,
)
from adapruner.config.recovery import FinetuneConfig
from adapruner.config.search import SearchConfig

Planned = TypeVar("Planned", "PlanConfig", "RunConfig")


class RegistryConfig(Section):
    """The registered model that the result becomes a version of."""

    name: SafeName = Field(description="name of the registered model")
    alias: SafeName | None = Field("candidate", description="alias of the new version; null: none")

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, alias: str | None) -> str | None:
        if alias is None:
            return None
        if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(
                "MLflow reserves 'latest', 'v1', 'v2' and so on; choose another, such as "
                "'candidate'"
            )
        if "." in alias:
            raise ValueError("MLflow takes letters, digits, '_' and '-' in an alias, no '.'")
        return alias


def _check_planner(run: Planned) -> Planned:
    """Raises ValueError for a layout or an update that the planner can't have."""
    planner, layout = run.search.planner, run.pruning.layout
    if planner == "gates" and layout not in ("per_layer", RESIDUAL_SUBSETS):
        raise ValueError(
            f"search.planner gates has no pruning.layout {layout}; use per_layer or "
            "residual_subsets"
        )
    if planner == "gates" and run.pruning.experts == "whole":
        raise ValueError("search.planner gates removes no experts; use pruning.experts: channels")
    if planner == "gates" and run.pruning.attention in ("kv_groups", "query_heads"):
        raise ValueError("search.planner gates keeps all heads; use pruning.attention: none")
    if planner == "gates" and run.pruning.allocation != "auto":
        raise ValueError("search.planner gates decides the widths; use pruning.allocation: auto")
    if planner == "gates" and run.pruning.ratio_of not in ("all", "blocks"):
        raise ValueError(
            "search.planner gates trains under a budget of parameters, not of "
            f"{run.pruning.ratio_of}; use pruning.ratio_of: all or blocks"
        )
    if layout != RESIDUAL_SUBSETS:
        return run
    if planner != "gates":
        raise ValueError(
            f"pruning.layout residual_subsets needs search.planner gates, not {planner}: scores "
            "are of MLP channels and heads alone"
        )
    if run.reconstruction.method != "none":
        raise ValueError(
            "pruning.layout residual_subsets needs reconstruction.method none: the updates are of "
            "MLPs with the whole residual stream"
        )
    return run


class PlanConfig(Section):
    """The settings that a pruning plan depends on, beside the pool and the importance table."""

    seed: int
    model: ModelConfig
    search: SearchConfig
    pruning: PruningConfig
    reconstruction: ReconstructionConfig

    _check = model_validator(mode="after")(_check_planner)


class RunConfig(Section):
    """One compression, from the source to the registered version."""

    name: SafeName = Field(description="results go to <output_dir>/<name>/")
    method: str = Field(DEFAULT, description="a preset, which sets the defaults of some sections")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything that is random")
    model: ModelConfig
    calibration: CalibrationConfig
    search: SearchConfig = SearchConfig()
    pruning: PruningConfig = PruningConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    registry: RegistryConfig
    output_dir: str = Field("runs", description="folder of the results")

    @property
    def plan_config(self) -> PlanConfig:
        """The settings of the search: trials do not depend on what `AFTER_TRIALS` names."""
        settings = {name: getattr(self, name) for name in PlanConfig.model_fields}
        defaults = ReconstructionConfig().model_dump(include=set(AFTER_TRIALS))
        reconstruction = self.reconstruction.model_copy(update=defaults)
        return PlanConfig(**settings | {"reconstruction": reconstruction})

    @property
    def serving(self) -> ServingConfig:
        """What the dense model is checked against before anything is computed."""
        prompts = self.evaluation.prompts
        return ServingConfig.of(
            [self.pruning], self.export.to, [self.finetune], self.context, prompts
        )

    @property
    def context(self) -> int:
        """Tokens of the longest window; requests of tasks are cut to fit the model."""
        lengths = [self.calibration.sequence_length, self.evaluation.sequence_length]
        if self.finetune.is_enabled:
            lengths.append(self.finetune.sequence_length)
        return max(lengths)

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        return with_4bit_export(apply_defaults(values)) if isinstance(values, Mapping) else values

    _check = model_validator(mode="after")(_check_planner)

    @model_validator(mode="after")
    def _check_finetune_shares(self) -> RunConfig:
        shares = self.finetune.shares
        if shares is not None and self.finetune.source is not None:
            raise ValueError(
                "finetune.shares are the shares of the sources of calibration.source, but "
                "fine-tuning uses finetune.source; remove one of the two settings"
            )
        check_shares("finetune.shares", shares, self.calibration.source)
        return self

    @model_validator(mode="after")
    def _check_sections(self) -> RunConfig:
        check_combination(self.search, self.pruning, self.reconstruction, self.finetune)
        check_processes(self.model, self.finetune)
        if self.finetune.branch_rank and self.export.to:
            raise ValueError(
                f"export.to {self.export.to[0]} can't hold the branches of finetune.branch_rank; "
                "set one of the two to its default"
            )
        return self

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        return check_preset(method)


def with_preset(
    config: RunConfig, name: str, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> RunConfig:
    """`config` with the settings of the preset `name` in place of its own, then with `changes`.

    What the preset of `config` sets and the new one does not goes back to its default. `changes`
    are values by section and key. Raises ValueError for an unknown preset, UserError for invalid
    values.
    """
    values = config.model_dump() | {"export": config.export.model_dump(exclude_unset=True)}
    for section, settings in presets()[config.method].settings.items():
        values[section] |= {
            key: type(getattr(config, section)).model_fields[key].default for key in settings
        }
    for by_section in (presets()[check_preset(name)].settings, changes or {}):
        for section, changed in by_section.items():
            values[section] |= changed
    return parse_section(RunConfig, values | {"method": name}, f"method {name}")
