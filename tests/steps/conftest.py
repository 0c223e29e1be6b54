"""What the tests of the steps share: a small checkpoint with a pool, and stage directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from steps.zenml_support import workspace
from tests.adapruner.conftest import workplace

__all__ = ["workplace"]


@pytest.fixture
def stages_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stage directories are created in, without a ZenML stack."""
    monkeypatch.setattr(workspace, "_scratch", lambda: tmp_path)
    return tmp_path
