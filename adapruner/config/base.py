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
    """A frozen set of settings that refuses unknown keys, infinity and NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


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

Shares = tuple[Annotated[float, Field(ge=0)], ...]
"""A share for each of several sources; they count relative to their sum."""


def check_shares(setting: str, shares: Shares | None, sources: Sources) -> None:
    """Raises ValueError unless there is one share for each source, not all 0; None is valid."""
    count = 1 if isinstance(sources, str) else len(sources)
    if shares is not None and (len(shares) != count or not sum(shares)):
        raise ValueError(
            f"{setting} {list(shares)}: expected one number for each of the {count} sources, "
            "not all 0"
        )


SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""A name that can be a part of a path, a URL and a registry entry."""
