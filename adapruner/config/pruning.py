"""How much is removed, and how the remaining weights are updated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from adapruner.config.base import Section
from adapruner.config.choices import RECONSTRUCTION, OneOf
from adapruner.serving_targets import PORTABLE_MULTIPLE, TARGETS

Layout = Literal["per_layer", "uniform", "residual_subsets", "semi_structured"]
RESIDUAL_SUBSETS = "residual_subsets"
RatioBase = Literal["all", "blocks", "memory", "latency"]
LatencyPhase = Literal["prefill", "decode"]
ReconstructionMethod = Annotated[str, OneOf(RECONSTRUCTION)]

SEMI_STRUCTURED: Layout = "semi_structured"
SEMI_STRUCTURED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "ratio": (0.5,),
    "ratio_of": ("blocks",),
    "protect_first": (0,),
    "protect_last": (0,),
    "attention": ("none", "auto"),
    "experts": ("channels",),
    "allocation": ("auto",),
}
"""What `pruning` may be set to in the layout semi_structured, the default first."""
RATIO_BASES: dict[RatioBase, str] = {
    "all": "all parameters",
    "blocks": "the decoder blocks' parameters",
    "memory": "the memory of weights and KV cache",
    "latency": "the time of a forward pass",
}
"""What `pruning.ratio` is a share of, in words."""


class PruningConfig(Section):
    """How much is removed, which structures, and in which layout."""

    ratio: float = Field(0.2, gt=0, lt=1, description="share of `ratio_of` to remove")
    ratio_of: RatioBase = Field(
        "all",
        description="what the ratio is a share of; all: all parameters; blocks: the decoder "
        "blocks' parameters; memory: bytes of the weights and of the KV cache of one sequence, as "
        "they are stored; latency: time of a forward pass at batch size 1, measured on this device",
    )
    context: int | None = Field(
        None,
        ge=1,
        description="memory: tokens in the KV cache; latency: tokens of the prompt; default: 4096 "
        "for memory, 256 for latency, and no more than the model's context",
    )
    latency_of: LatencyPhase = Field(
        "prefill",
        description="latency only; prefill: the pass over a prompt of `context` tokens; decode: "
        "the pass of one token after such a prompt",
    )
    layout: Layout = Field(
        "per_layer",
        description="per_layer: each layer has a width of its own; uniform: one width for all "
        "layers; of a mixture of experts, one for its experts and one for its dense MLPs; "
        "residual_subsets: each block also reads and writes its own dimensions of the residual "
        "stream, for search.planner gates and Transformers alone; semi_structured: no structure is "
        "removed, 2 of 4 weights of every projection are zero, which is pruning.ratio 0.5 of their "
        "weights",
    )
    protect_first: int = Field(4, ge=0, description="per_layer only: first layers left unpruned")
    protect_last: int = Field(2, ge=0, description="per_layer only: last layers left unpruned")
    target: Literal["transformers", "vllm", "llama.cpp", "portable"] = Field(
        "transformers",
        description="the runtime that serves the result: sets round_to and the structures that it "
        "can load; portable: all of them",
    )
    round_to: int = Field(
        8,
        ge=1,
        description="MLP widths, and sizes of residual subsets, are multiples of this; default by "
        "target: transformers 8, vllm 64, llama.cpp 32, portable 256",
    )
    attention: Literal["auto", "none", "kv_groups", "query_heads"] = Field(
        "auto",
        description="attention structures to remove; auto: kv_groups for multi-head models, none "
        "for grouped-query models and where the target takes equal heads alone",
    )
    experts: Literal["channels", "whole"] = Field(
        "channels",
        description="of a mixture of experts, channels: equally many of each expert of a layer; "
        "whole: whole experts first, as many as the share allows, and channels for the rest",
    )

    allocation: Literal["auto", "fluctuation"] = Field(
        "auto",
        description="per_layer only: what decides the layers' widths. auto: scores that compare "
        "across layers, else the trials' width profile, else equal shares; fluctuation: how far "
        "the importance of each layer differs between samples (SAAP)",
    )
    fluctuation: Literal["remove_unstable", "keep_unstable"] = Field(
        "remove_unstable",
        description="allocation fluctuation only: the layers whose importance differs more lose "
        "more (SAAP) or less, as channels do by FLAP's score",
    )

    @property
    def latency_settings(self) -> PruningConfig | None:
        """The settings that a latency table depends on, others at their defaults.

        None where the ratio is not a share of latency.
        """
        names = {"ratio_of", "context", "latency_of", "attention", "layout", "target", "round_to"}
        return PruningConfig(**self.model_dump(include=names)) if self.is_timed else None

    @property
    def is_timed(self) -> bool:
        """Whether the ratio is a share of latency."""
        return self.ratio_of == "latency"

    @model_validator(mode="before")
    @classmethod
    def _apply_layout(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("layout") != SEMI_STRUCTURED:
            return values
        return {name: allowed[0] for name, allowed in SEMI_STRUCTURED_VALUES.items()} | {**values}

    @model_validator(mode="after")
    def _check_layout(self) -> PruningConfig:
        for name, allowed in SEMI_STRUCTURED_VALUES.items():
            value = getattr(self, name)
            if self.layout == SEMI_STRUCTURED and value not in allowed:
                raise ValueError(
                    f"pruning.{name} is {allowed[0]} in the layout semi_structured, where 2 of 4 "
                    f"weights of every projection are zero; got {value}, leave it out"
                )
        return self

    @model_validator(mode="before")
    @classmethod
    def _apply_target(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "round_to" in values:
            return values
        target = TARGETS.get(str(values.get("target")))
        return {**values, "round_to": target.multiple} if target else values

    @model_validator(mode="after")
    def _check_subsets(self) -> PruningConfig:
        if self.layout != RESIDUAL_SUBSETS:
            return self
        if self.target != "transformers":
            raise ValueError(
                f"pruning.layout residual_subsets needs pruning.target transformers: {self.target} "
                "has one width of the residual stream for all blocks"
            )
        if self.attention in ("kv_groups", "query_heads") or self.experts == "whole":
            raise ValueError(
                "pruning.layout residual_subsets keeps all heads and takes no experts; use "
                "pruning.attention: none and pruning.experts: channels"
            )
        return self

    @model_validator(mode="after")
    def _check_target(self) -> PruningConfig:
        heads_differ = self.layout == "per_layer" and self.attention in ("kv_groups", "query_heads")
        if heads_differ and not TARGETS[self.target].heads_by_layer:
            raise ValueError(
                f"pruning.attention {self.attention} gives layers of different head counts, which "
                f"pruning.target {self.target} can't load; use pruning.layout: uniform"
            )
        if self.is_timed and self.experts == "whole":
            raise ValueError(
                "pruning.experts whole: a token takes the same time with fewer experts, so they "
                "do not count for pruning.ratio_of latency; use experts: channels"
            )
        if self.target == "portable" and self.round_to % PORTABLE_MULTIPLE:
            raise ValueError(
                f"pruning.target portable needs pruning.round_to a multiple of "
                f"{PORTABLE_MULTIPLE}, got {self.round_to}"
            )
        return self

    @model_validator(mode="after")
    def _check_allocation(self) -> PruningConfig:
        if self.allocation == "fluctuation" and self.layout == "uniform":
            raise ValueError(
                "pruning.allocation fluctuation gives each layer its own width, but pruning.layout "
                "is uniform; use per_layer, or pruning.allocation: auto"
            )
        return self


AFTER_TRIALS = frozenset({"epochs", "activations"})
"""Settings of `reconstruction` that trials do not depend on."""


class ReconstructionConfig(Section):
    """How the remaining weights are updated after the cut."""

    method: ReconstructionMethod = Field(
        "least_squares",
        description="least_squares: update the weights of cut MLPs; bias: add biases to the output "
        "projections, where the family's config has them; none",
    )
    ridge: float | None = Field(
        None,
        gt=0,
        description="regularization towards the old weights, 1 is strong; default: chosen for each "
        "layer on the objective text",
    )
    epochs: int = Field(
        2,
        ge=0,
        description="least_squares only: passes over the update samples that fit all weights of "
        "each cut MLP to the output of the whole one, after the update of its output projection in "
        "closed form; 0: that update alone, as in the trials",
    )
    activations: Literal["pruned", "dense"] = Field(
        "pruned",
        description="least_squares only: whose activations the update is computed from; pruned: "
        "those of the cut layers below, in two passes over the update samples; dense: those of the "
        "dense model, by the matrices of the trials and without a pass, for `epochs: 0`",
    )

    @model_validator(mode="after")
    def _check_activations(self) -> Self:
        if self.is_by_matrices and self.epochs:
            raise ValueError(
                "reconstruction.activations is dense, which is for the closed form alone; got "
                f"epochs {self.epochs}; set epochs to 0, or activations to pruned"
            )
        return self

    @property
    def is_by_matrices(self) -> bool:
        """Whether the update is computed from the matrices of the trials."""
        return self.method == "least_squares" and self.activations == "dense"
