"""What every test may rely on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# ZenML looks for the file of the main module, which a worker of pytest-xdist does not have.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules["__main__"].__file__ = pytest.__file__


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: processes that share the files then end at the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _no_tracking_uri() -> Iterator[None]:
    """MLflow leaves the tracking URI that a test sets in the environment.

    It is removed after each test as well: fixtures of the next module start before its tests.
    """
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
