"""What is measured, and the limits of the gate."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from adapruner.config.base import SafeName, Section

Counts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=2**20)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, int) else value),
    Field(min_length=1, max_length=16),
]
"""A positive integer, or a list of them."""
Share = Annotated[float, Field(ge=0)]
Limit = Annotated[float, Field(gt=0)]
MetricKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./: -]{1,100}$")]
"""The name of a text or task; MLflow takes no other characters in the name of a parameter."""


class QualityConfig(Section):
    """The settings that perplexities and task scores depend on."""

    sequence_length: int = Field(128, ge=2, description="tokens per window of perplexity")
    max_windows: int | None = Field(
        200, ge=1, description="maximum number of windows of each test text; null: all"
    )
    tasks: tuple[str, ...] = Field((), description="zero-shot tasks, by lm-eval's names")
    tasks_dir: str | None = Field(None, description="folder of your own lm-eval task files")
    limit: int | None = Field(None, ge=1, description="rows of each task; default: all")
    max_length: int = Field(1024, ge=2, description="maximum tokens of a zero-shot request")


class GateConfig(Section):
    """What the final model must keep of the dense model; only limits that are set are checked."""

    mean_retention: Share | None = Field(None, description="minimum mean retention over the tasks")
    task_retention: Share | dict[MetricKey, Share] | None = Field(
        None, description="minimum retention of every task, or a minimum per task"
    )
    perplexity_ratio: Limit | dict[MetricKey, Limit] | None = Field(
        None,
        description="maximum perplexity relative to the dense model's, or a maximum per text",
    )
    agreement: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="minimum share of positions with the dense model's top next token"
    )
    kl_divergence: Limit | None = Field(None, description="maximum mean KL(dense || model) in nats")
    size_ratio: Limit | None = Field(None, description="maximum share of parameters that remain")
    prefill_speedup: Limit | None = Field(
        None, description="minimum prefill speedup, in every setting"
    )
    decode_speedup: Limit | None = Field(
        None, description="minimum decode speedup, in every setting"
    )

    @model_validator(mode="after")
    def _check_any_limit(self) -> GateConfig:
        if all(limit is None or limit == {} for _, limit in self):
            raise ValueError("a gate without a limit passes everything; set one or leave it out")
        return self


class EvaluationConfig(QualityConfig):
    """What is measured of the dense, the pruned and the fine-tuned model."""

    texts: dict[SafeName, str] = Field(
        default_factory=dict, description="name -> test text; default: the test split"
    )
    text_field: str = Field("text", description="field of a test text's rows")
    data_dir: str | None = Field(
        None, description="folder with tasks/<task>.jsonl; default: data from the hub"
    )
    batch_size: int = Field(
        8, ge=1, description="batch size of zero-shot tasks; sets memory, not results"
    )
    speed: bool = Field(True, description="measure prefill and decode speed")
    batch_sizes: Counts = Field((1, 8), description="batch sizes of the speed measurement")
    prompt_tokens: Counts = Field((128, 512), description="prompt lengths, for speed and cost")
    new_tokens: int = Field(
        32, ge=2, le=2**20, description="tokens generated in the speed measurement"
    )
    repeats: int = Field(5, ge=1, description="repeats of the speed measurement")
    peak_memory: bool = Field(
        True, description="measure peak memory in a fresh process; needs `speed`"
    )
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (
            "The capital of France is",
            "Water boils when",
            "In the year 1900, the city",
            "The most important thing to know about music is",
        ),
        description="prompts that each model continues greedily, shown side by side",
    )
    behaviour_windows: int = Field(
        16,
        ge=0,
        description="windows of each test text on which next tokens are compared",
    )
    gate: GateConfig | None = Field(None, description="limits that the final model must meet")

    def only(self, *names: str) -> Self:
        """These settings with all others at their defaults: a cache key depends on these alone."""
        return type(self)(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _check_gate_is_measured(self) -> EvaluationConfig:
        gate = self.gate
        if gate is None:
            return self
        for name in ("mean_retention", "task_retention"):
            if getattr(gate, name) is not None and not self.tasks:
                raise ValueError(f"gate.{name} needs evaluation.tasks; name some")
        named = gate.perplexity_ratio if isinstance(gate.perplexity_ratio, dict) else {}
        for name in named if self.texts else ():
            if not any(text in name for text in self.texts):
                raise ValueError(
                    f"gate.perplexity_ratio names '{name}', which is none of evaluation.texts: "
                    f"{', '.join(self.texts)}"
                )
        if (gate.prefill_speedup or gate.decode_speedup) and not self.speed:
            raise ValueError("a speedup in the gate needs evaluation.speed: true")
        if (gate.agreement is not None or gate.kl_divergence) and not self.behaviour_windows:
            raise ValueError(
                "gate.agreement and gate.kl_divergence need evaluation.behaviour_windows"
            )
        return self

    @property
    def quality(self) -> QualityConfig:
        """The settings that perplexities and task scores depend on."""
        return QualityConfig(**{name: getattr(self, name) for name in QualityConfig.model_fields})

    @model_validator(mode="after")
    def _check_task_origin(self) -> EvaluationConfig:
        if self.tasks_dir is not None and self.data_dir is not None:
            raise ValueError(
                "tasks_dir and data_dir are both set: tasks_dir holds definitions with data of "
                "their own, data_dir the data of lm-eval's tasks; set one of them"
            )
        return self
