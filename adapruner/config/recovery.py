"""Fine-tuning of the pruned model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adapruner.config.base import Section, Shares, Sources
from adapruner.config.choices import RECOVERY, OneOf

LORA = "lora"
"""The method that several processes can train with."""
GROUPED = "grouped"
"""The method that trains the model in 4 bit."""

RecoveryMethod = Annotated[str, OneOf(RECOVERY)]


class TeacherConfig(Section):
    """What the teacher logits depend on: the examples and the number of tokens kept.

    `shares` are those of the domains, see `recovery.training.examples.select_examples`.
    """

    sequence_length: int
    examples: int
    top_k: int
    shares: Shares = ()


class FinetuneConfig(Section):
    """Fine-tuning on the fine-tune split."""

    method: RecoveryMethod = Field(
        LORA,
        description="lora: adapters on all projections, merged into the weights; grouped: "
        "projections in 4 bit, whose groups of columns are moved by adapters; ast: all weights of "
        "the projections with their masks, in the layout semi_structured; none",
    )
    source: Sources | None = Field(
        None, description="text or Alpaca rows; default: a split of calibration.source"
    )
    shares: Shares | None = Field(
        None,
        description="share of each source of calibration.source, if it has several and "
        "finetune.source is not set; default: the shares that the search found for the update "
        "(with the loss data), else those of the calibration pool",
    )
    loss: Literal["data", "distill", "both"] = Field(
        "data",
        description="data: cross-entropy of the text; distill: divergence from the dense model's "
        "next-token distributions; both: their mean",
    )
    top_k: int = Field(
        64,
        ge=1,
        description="distill, both: tokens kept of each of the dense model's distributions",
    )
    steps: int = Field(60, ge=1, description="optimizer steps")
    batch_size: int = Field(4, ge=1, description="examples per step")
    sequence_length: int = Field(128, ge=2, description="tokens per example")
    learning_rate: float = Field(4e-4, gt=0, description="peak learning rate, with cosine decay")
    warmup_steps: int = Field(
        5, ge=0, description="steps of linear warm-up, of `steps` at most; the default fits any"
    )
    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(32, ge=1, description="scale of the adapters")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout of the LoRA adapters; 0 for experts and for grouped"
    )
    group_size: Literal[32, 64, 128] = Field(
        32, description="grouped: input columns with one step and one minimum"
    )
    recompute: bool | None = Field(
        None,
        description="whether the backward pass computes the activations of each layer again: less "
        "memory, a third more time; default: for grouped",
    )
    mask_steps: int = Field(10, ge=1, description="ast only: steps between updates of the masks")
    mask_decay: float = Field(
        2e-4,
        ge=0,
        description="ast only: decay of the masked weights, as a share added to their gradient; "
        "grows from 0 over the first half of the steps",
    )
    branch_rank: int = Field(
        0,
        ge=0,
        description="ast only: rank of a branch beside each projection, saved as an adapter that "
        "the result needs: merged, its weights are no longer 2:4; 0: none",
    )

    @property
    def is_enabled(self) -> bool:
        """Whether the pruned model is fine-tuned at all."""
        return self.method != "none"

    @model_validator(mode="after")
    def _check_warmup(self) -> FinetuneConfig:
        default = type(self).model_fields["warmup_steps"].default
        if self.warmup_steps > max(self.steps, default):
            raise ValueError(
                f"finetune.warmup_steps {self.warmup_steps}: there are {self.steps} steps; give "
                "fewer steps of warm-up"
            )
        return self

    @property
    def starts_dense(self) -> bool:
        """Whether training starts from the weights of the dense model."""
        return self.method == "ast"

    @property
    def recomputes(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return self.method == GROUPED if self.recompute is None else self.recompute

    @property
    def has_dropout(self) -> bool:
        """Whether adapters are trained with dropout."""
        return self.method not in ("none", GROUPED) and self.dropout > 0

    @property
    def teacher(self) -> TeacherConfig | None:
        """What the teacher logits depend on; None where nothing is distilled."""
        if not self.is_enabled or self.loss == "data":
            return None
        return TeacherConfig(
            sequence_length=self.sequence_length,
            examples=self.steps * self.batch_size,
            top_k=self.top_k,
            shares=self.shares or (),
        )
