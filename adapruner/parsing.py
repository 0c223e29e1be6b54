"""From a file's values to a configuration, and from pydantic's errors to one line a mistake."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from adapruner.config import RunConfig
from adapruner.errors import UserError

T = TypeVar("T", bound=BaseModel)


def parse_config(values: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration that `values` spells, or a UserError of one line a mistake.

    `where` names the file or option that the values came from.
    """
    return parse_section(RunConfig, values, where)


def parse_section(kind: type[T], values: Any, where: str, above: str = "") -> T:
    """As `parse_config`, for a section of any kind; `above` is the path that leads to it."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = "; ".join(_explain(e, kind, where, above) for e in error.errors())
        raise UserError(found) from None


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the known word nearest to `word`, or the list of known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(known)}"


def _explain(error: Any, kind: type[BaseModel], where: str, above: str) -> str:
    path = ".".join([*([above] if above else []), *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        section = _section_at(kind, error["loc"][:-1])
        known = sorted(section.model_fields) if section else []
        return f"{where}: unknown key '{path}'{nearest(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return f"{where}: '{path}' is missing; it is required"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])  # of a whole section it would hide the message
    given = f" is {shown}" if len(shown) <= 100 else ""
    return f"{where}: '{path}'{given}: {message}"


def _section_at(section: type[BaseModel], path: Sequence[Any]) -> type[BaseModel] | None:
    parts = iter(path)
    for part in parts:
        if isinstance(part, int):  # an item of a list of sections, which the name before led to
            continue
        field = section.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
            next(parts, None)  # the table's key
        found = [t for t in _alternatives(annotation) if _is_section(t)]
        if not found:
            return None
        section = found[0]
    return section


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union or, for a tuple, of its items."""
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return get_args(annotation)
    return (annotation,)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
