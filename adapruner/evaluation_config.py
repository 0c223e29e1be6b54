"""What is measured, and what the gate asks of it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from adapruner.section import SafeName, Section

Counts = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, int) else value),
    Field(min_length=1, max_length=16),
]
"""One whole number from 1 on, or a list of them."""
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class QualityConfig(Section):
    """What the quality figures depend on, beside the checkpoint and the content of the tests."""

    sequence_length: int = Field(128, ge=2)
    max_windows: int | None = Field(200, ge=1)
    tasks: tuple[str, ...] = Field((), description="zero-shot tasks, by lm-eval's names")
    tasks_dir: str | None = Field(None, description="folder of lm-eval task files of your own")
    limit: int | None = Field(None, ge=1, description="rows of each task")
    max_length: int = Field(1024, ge=2, description="longest context of a zero-shot request")


class GateConfig(Section):
    """What the delivered model must keep of the dense one; only limits that are set are asked."""

    mean_retention: Share | None = Field(None, description="least mean retention over the tasks")
    task_retention: Share | dict[str, Share] | None = Field(
        None, description="least retention of every task, or task -> least retention"
    )
    perplexity_ratio: Limit | dict[str, Limit] | None = Field(
        None, description="largest perplexity over the dense model's: of every text, or by text"
    )
    agreement: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="least share of positions with the dense model's top next token"
    )
    kl_divergence: Limit | None = Field(None, description="largest mean KL(dense || model), nats")
    size_ratio: Limit | None = Field(None, description="largest share of parameters that is left")
    prefill_speedup: Limit | None = Field(None, description="least speedup, in every setting")
    decode_speedup: Limit | None = Field(None, description="least speedup, in every setting")

    @model_validator(mode="after")
    def _asks_for_something(self) -> GateConfig:
        if all(limit is None or limit == {} for _, limit in self):
            raise ValueError("a gate without a limit passes everything; set one or leave it out")
        return self


class EvaluationConfig(QualityConfig):
    """What is measured of the dense, the pruned and the fine-tuned model."""

    texts: dict[SafeName, str] = Field(
        default_factory=dict, description="name -> text file; default: the test split"
    )
    text_field: str = "text"
    data_dir: str | None = Field(
        None, description="folder with tasks/<task>.jsonl; default: the tasks' data of the hub"
    )
    batch_size: int = Field(8, ge=1)
    speed: bool = True
    batch_sizes: Counts = Field((1, 8), description="sequences at once, for speed")
    prompt_tokens: Counts = Field((128, 512), description="lengths of prompts, for speed and cost")
    new_tokens: int = Field(32, ge=2)
    repeats: int = Field(5, ge=1)
    peak_memory: bool = Field(True, description="measured in a fresh process, with speed")
    prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (
            "The capital of France is",
            "Water boils when",
            "In the year 1900, the city",
            "The most important thing to know about music is",
        ),
        description="continued greedily by each model, side by side",
    )
    behaviour_windows: int = Field(
        16, ge=0, description="windows of each test text on which next tokens are compared"
    )
    gate: GateConfig | None = Field(None, description="what the delivered model must keep")

    def only(self, *names: str) -> Self:
        """These settings and all others at their defaults: a step's key depends on no more."""
        return type(self)(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _gate_can_be_judged(self) -> EvaluationConfig:
        gate = self.gate
        if gate is None:
            return self
        for name in ("mean_retention", "task_retention"):
            if getattr(gate, name) is not None and not self.tasks:
                raise ValueError(f"gate.{name} needs evaluation.tasks; name some")
        if (gate.prefill_speedup or gate.decode_speedup) and not self.speed:
            raise ValueError("a speedup in the gate needs evaluation.speed: true")
        if (gate.agreement is not None or gate.kl_divergence) and not self.behaviour_windows:
            raise ValueError(
                "gate.agreement and gate.kl_divergence need evaluation.behaviour_windows"
            )
        return self

    @property
    def quality(self) -> QualityConfig:
        """The part that, when changed, leaves no quality figure as it was."""
        return QualityConfig(**{name: getattr(self, name) for name in QualityConfig.model_fields})

    @model_validator(mode="after")
    def _one_origin_of_tasks(self) -> EvaluationConfig:
        if self.tasks_dir is not None and self.data_dir is not None:
            raise ValueError(
                "tasks_dir and data_dir are both given: tasks_dir holds definitions with data of "
                "their own, data_dir the data of lm-eval's tasks; give one"
            )
        return self
