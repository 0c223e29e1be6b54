"""`<output_dir>/<name>/`: what a run leaves for people and for programs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.materializer import link_or_copy
from steps.workspace import TIMING

MARK = "report.json"


def directory_of(config: RunConfig) -> Path:
    """Where the results of this configuration go."""
    return Path(config.output_dir) / config.name


def check_target(config: RunConfig) -> None:
    """Raises UserError when something that is not a run's result stands at the target."""
    target = directory_of(config)
    foreign = target.is_dir() and any(target.iterdir()) and not (target / MARK).is_file()
    if foreign or (target.exists() and not target.is_dir()):
        raise UserError(
            f"'{target}' holds something that is not a run's result and would be replaced; "
            "give the run another `name` or `output_dir`"
        )


def publish(
    config: RunConfig, report: Path, checkpoint: Path, registered: Mapping[str, Any]
) -> Path:
    """Put report, plan and checkpoint at the target, replacing an earlier run's as a whole.

    Weights are hard links where the file system allows: the same bytes, not a second copy.
    """
    check_target(config)
    target = directory_of(config).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{config.name}-", dir=target.parent))
    try:
        new = beside / "new"
        untimed = shutil.ignore_patterns(TIMING)
        shutil.copytree(report, new, ignore=untimed)
        shutil.copytree(checkpoint, new / "checkpoint", ignore=untimed, copy_function=_link_weights)
        text = json.dumps(dict(registered), indent=2, sort_keys=True)
        (new / "model_version.json").write_text(text + "\n", encoding="utf-8")
        if target.exists():
            target.rename(beside / "old")
        new.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        link_or_copy(source, target)
    else:
        shutil.copyfile(source, target)
