"""In which formats of other runtimes the result is written as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from adapruner.config.base import Section
from adapruner.config.choices import EXPORT, OneOf
from adapruner.config.pruning import PruningConfig

TensorType = Literal["f32", "f16", "bf16", "q8_0", "q4_1", "q4_0"]
TENSOR_TYPES: tuple[str, ...] = get_args(TensorType)


class ExportConfig(Section):
    """Formats of other runtimes that the final checkpoint is written in, beside its own."""

    to: tuple[Annotated[str, OneOf(EXPORT)], ...] = Field(
        (), description="gguf: for llama.cpp; decilm: for vLLM, SGLang and MLX; default: none"
    )
    type: TensorType = Field("f16", description="type of the tensors in GGUF")

    @field_validator("to")
    @classmethod
    def _check_unique(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(formats)) < len(formats):
            raise ValueError("a format is listed twice")
        return formats


_SERVED = {
    "target", "layout", "attention", "experts", "round_to", "protect_first", "protect_last"
}  # fmt: skip


class ServingConfig(Section):
    """The settings of a run, or of a comparison, that the dense model is checked against.

    They decide which runtime can load the results, and whether experts can be fine-tuned.
    """

    results: tuple[PruningConfig, ...]
    to: tuple[str, ...]
    has_dropout: bool

    @classmethod
    def of(
        cls, results: Iterable[PruningConfig], to: tuple[str, ...] = (), has_dropout: bool = False
    ) -> ServingConfig:
        """Each result's settings that decide it, once; others have their defaults.

        `has_dropout` is whether adapters have any.
        """
        settings = (PruningConfig(**result.model_dump(include=_SERVED)) for result in results)
        return cls(results=tuple(dict.fromkeys(settings)), to=to, has_dropout=has_dropout)
