"""Results directories of runs, and the command line in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from adapruner.report.build import write_report
from pipelines.cli.main import main
from tests.adapruner.report.reports import build, settings, write_stages


def run(*arguments: object) -> Result:
    """A call of `adapruner` in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write_results(tmp_path: Path) -> Path:
    """The results directory of a run with a gate on the size."""
    stages = write_stages(tmp_path / "stages")
    out = tmp_path / "runs" / "small"
    out.mkdir(parents=True)
    write_report(build(stages, settings(limits={"size_ratio": 0.81})), stages, out)
    return out


def edited(results: Path, name: str, **sections: Any) -> Path:
    """A copy of the report, with another name and some sections replaced."""
    other = results.with_name(name)
    other.mkdir()
    report = json.loads((results / "report.json").read_text())
    (other / "report.json").write_text(json.dumps({**report, "name": name, **sections}))
    return other
