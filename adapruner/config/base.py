"""Base class and common types of the configuration's sections."""

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
    """A frozen set of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _parse_sources(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """One error where the union would report one for each of its alternatives."""
    try:
        return parse(value)
    except ValidationError:
        raise ValueError("expected a text source, or a list of at least one") from None


Sources = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=1)], WrapValidator(_parse_sources)
]
"""One text source or a list of them."""

SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""A name that can be a part of a path, a URL and a registry entry."""
