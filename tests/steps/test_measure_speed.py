from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import EvaluationConfig, ModelConfig
from steps import workspace
from steps.measure_speed import measure_speed


def test_where_speed_is_switched_off_nothing_is_loaded_or_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_scratch", lambda: tmp_path)
    none = tmp_path / "none"
    out = measure_speed.entrypoint(
        none, none, ModelConfig(source="m"), EvaluationConfig(speed=False)
    )
    assert (out / "speed.json").read_text() == "{}\n"
