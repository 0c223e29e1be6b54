"""Progress of long work: messages, and bars that are hidden when the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as _track

T = TypeVar("T")
console = Console(stderr=True)


def announce(message: str) -> None:
    """Prints one line to standard error."""
    console.print(message, markup=False, highlight=False)


def hide_library_bars() -> None:
    """Disables Transformers' own progress bars when the output is no terminal."""
    from transformers.utils import logging

    if not console.is_terminal:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """`items` with a progress bar; without a `description`, or outside a terminal, no bar."""
    return _track(
        items,
        description,
        total=total,
        console=console,
        disable=not (console.is_terminal and description),
        transient=True,
    )
