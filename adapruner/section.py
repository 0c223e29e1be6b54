"""What all sections of the configuration are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _sources(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """One mistake where the union would tell one for each of its alternatives."""
    try:
        return parse(value)
    except ValidationError:
        raise ValueError("wanted a text source, or a list of at least one") from None


Sources = Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)], WrapValidator(_sources)]
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
