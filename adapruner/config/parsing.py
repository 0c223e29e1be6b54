"""From a file's values to validated settings, and from pydantic's errors to one line each."""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from adapruner.errors import UserError

T = TypeVar("T", bound=BaseModel)


def parse_section(kind: type[T], values: Any, where: str, prefix: str = "") -> T:
    """The section `kind` with these values, or a UserError with one clause per invalid setting.

    `where` names the file or option that the values came from; `prefix` is the path to the section.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(e, kind, where, prefix) for e in error.errors())
        raise UserError(problems) from None


def closest(word: str, words: Sequence[str], similarity: float) -> str | None:
    """The word most similar to `word`; None if all are below `similarity`, from 0 to 1."""
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=similarity)), None)


def nearest(word: str, words: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the word nearest to `word`, or the list of all words."""
    close = closest(word, words, 0.5)
    return f"; did you mean '{close}'?" if close else f"; available: {', '.join(words)}"


def _explain(error: Any, kind: type[BaseModel], where: str, prefix: str) -> str:
    path = ".".join([*([prefix] if prefix else []), *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        section = _section_at(kind, error["loc"][:-1])
        keys = sorted(section.model_fields) if section else []
        return f"{where}: unknown key '{path}'{nearest(str(error['loc'][-1]), keys)}"
    if error["type"] == "missing":
        return f"{where}: '{path}' is missing; it is required"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])  # the value of a whole section would hide the message
    value = f" is {shown}" if len(shown) <= 100 else ""
    if not path:  # of several sections together
        return f"{where}: {message}"
    return f"{where}: '{path}'{value}: {message}"


def _section_at(section: type[BaseModel], path: Sequence[Any]) -> type[BaseModel] | None:
    parts = iter(path)
    for part in parts:
        if isinstance(part, int):  # an item of a list of sections
            continue
        field = section.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
            next(parts, None)  # the key in the table
        sections = [t for t in _alternatives(annotation) if _is_section(t)]
        if not sections:
            return None
        section = sections[0]
    return section


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union or, for a tuple, of its items."""
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return get_args(annotation)
    return (annotation,)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
