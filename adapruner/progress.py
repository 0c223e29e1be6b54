"""What long work says while it goes on: lines and bars for a terminal, lines alone elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as _track

T = TypeVar("T")
console = Console(stderr=True)


def say(message: str) -> None:
    """One line about what is done now and what it costs."""
    console.print(message, markup=False, highlight=False)


def quieten_libraries() -> None:
    """Keeps Transformers' own bars off where no terminal shows them."""
    from transformers.utils import logging

    if not console.is_terminal:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """`items`, with a progress bar that is quiet when the output is no terminal."""
    return _track(
        items,
        description,
        total=total,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
