"""In which formats of other runtimes the result is written as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from adapruner.config.base import Section
from adapruner.config.choices import EXPORT, OneOf
from adapruner.config.pruning import PruningConfig
from adapruner.config.recovery import GROUPED, FinetuneConfig

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


def with_4bit_export(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's values; a model that is tuned in 4 bit is exported so unless they differ.

    Invalid values are left for validation.
    """
    finetune, own = (_plain(values.get(section, {})) for section in ("finetune", "export"))
    if own is None or (finetune or {}).get("method") != GROUPED:
        return dict(values)
    return {**values, "export": {"to": ("gguf",), "type": "q4_1", **own}}


def _plain(section: Any) -> Mapping[str, Any] | None:
    """The values that a section sets; None for one that is no section."""
    if isinstance(section, Section):
        return section.model_dump(exclude_unset=True)
    return section if isinstance(section, Mapping) else None


_SERVED = {
    "target", "layout", "attention", "experts", "round_to", "protect_first", "protect_last"
}  # fmt: skip


class ServingConfig(Section):
    """The settings of a run, or of a comparison, that the dense model is checked against.

    They decide which runtime can load the results, and whether they can be fine-tuned.
    `has_dropout` is whether adapters have any, `group_size` that of results in 4 bit, `context` the
    number of tokens of the longest window, `prompts` what the models continue.
    """

    results: tuple[PruningConfig, ...]
    to: tuple[str, ...]
    has_dropout: bool
    group_size: int | None
    context: int = 0
    prompts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        results: Iterable[PruningConfig],
        to: tuple[str, ...] = (),
        tunings: Iterable[FinetuneConfig] = (),
        context: int = 0,
        prompts: tuple[str, ...] = (),
    ) -> ServingConfig:
        """Each result's settings that decide it, once; others have their defaults."""
        tunings = list(tunings)
        settings = (PruningConfig(**result.model_dump(include=_SERVED)) for result in results)
        return cls(
            results=tuple(dict.fromkeys(settings)),
            to=to,
            has_dropout=any(tuning.has_dropout for tuning in tunings),
            group_size=max((t.group_size for t in tunings if t.method == GROUPED), default=None),
            context=context,
            prompts=prompts,
        )
