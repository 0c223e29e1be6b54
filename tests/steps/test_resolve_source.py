from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.resolve_source import resolve_source


def test_a_device_that_is_not_there_is_found_out_before_anything_else(tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "name": "run",
            "model": {"source": "m", "device": "cuda:99"},
            "calibration": {"source": "t.txt"},
            "registry": {"name": "r"},
            "output_dir": str(tmp_path / "runs"),
        }
    )
    with pytest.raises(UserError, match="cuda:99"):
        resolve_source.entrypoint(config)
