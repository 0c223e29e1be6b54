"""What libraries raise becomes one line; an interrupt stays one."""

from __future__ import annotations

import pytest

from adapruner.errors import UserError, refused_as


class InterruptedDescriptor:
    """Python raises a RuntimeError of what its `__set_name__` raises, also of an interrupt."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_that_was_turned_into_another_exception_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), refused_as("the file can't be read"):
        type("Class", (), {"attribute": InterruptedDescriptor()})


def test_any_other_exception_is_refused_with_its_first_line() -> None:
    with pytest.raises(UserError, match=r"^x: one$"), refused_as("x"):
        raise IndexError("one\ntwo")
