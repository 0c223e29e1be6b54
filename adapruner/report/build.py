"""The report of a run: report.json for programs, report.html for people.

All values are read from the directories of the stages; nothing is computed here that no stage has
measured, except differences, ratios and sums.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adapruner.pruning.plan import PruningPlan
from adapruner.report import gate, sections
from adapruner.report.files import PAGE_FILE, REPORT_FILE, write_page
from adapruner.report.sections import Inputs


def build_report(inputs: Inputs) -> dict[str, Any]:
    """The content of report.json: the entries of all sections, and the gate's evaluation of them.

    Parameters are counts (tied embeddings once), sizes are bytes of the weight files, ratios are
    shares of 1. The entry of a stage that did not run is null, and so is a number that is not
    finite, as JSON has none. The search stage is required.
    """
    report: dict[str, Any] = {
        "name": inputs.config.name,
        "created": inputs.provenance.get("created"),
    }
    for section in sections.SECTIONS:
        for name, collect in section.entries.items():
            report[name] = _finite(collect(inputs))
    report["gate"] = gate.evaluate_gate(inputs.config.evaluation.gate, report)
    return report


def write_report(report: Mapping[str, Any], stages: Mapping[str, Path], out: Path) -> None:
    """Writes report.json and report.html, and copies plan.json, to the directory `out`."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (out / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    write_page(report, out / PAGE_FILE)
    shutil.copyfile(stages["search"] / PruningPlan.FILE, out / PruningPlan.FILE)


def _finite(value: Any) -> Any:
    """A JSON value with null in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value
