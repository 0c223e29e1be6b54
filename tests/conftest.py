"""What every test may rely on."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow puts the tracking URI that a test sets into the environment, and leaves it there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
