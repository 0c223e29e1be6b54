"""What every test may rely on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_tracking_uri() -> Iterator[None]:
    """MLflow leaves the tracking URI that a test sets in the environment.

    It is removed after each test as well: fixtures of the next module start before its tests.
    """
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
