"""The smallest valid configuration of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.config import RunConfig


def minimal_config(folder: Path, **sections: Any) -> RunConfig:
    """The configuration of the run `run`, whose output folder is `runs/run` in `folder`."""
    values = {
        "name": "run",
        "model": {"source": "m"},
        "calibration": {"source": "t.txt"},
        "registry": {"name": "r"},
        "output_dir": str(folder / "runs"),
    }
    return RunConfig.model_validate(values | sections)
