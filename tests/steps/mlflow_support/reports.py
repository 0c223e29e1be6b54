"""A report.json with the sections that MLflow gets, as tests of both modules use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPORT: dict[str, Any] = {
    "params": {"dense": 100, "pruned": 80, "removed": 20},
    "ratio": {"requested": 0.2, "of": "all", "achieved": 0.21, "achieved_all": 0.21},
    "metrics": {"dense": {"t_ppl": 10.0}, "pruned": {"t_ppl": 12.0}, "finetuned": None},
    "retention": {"pruned": {"mean": {"retention": 0.9}}},
    "recovery": {"method": "none"},
    "gate": {"passed": None, "checks": []},
    "speed": None,
    "timings_s": {"search": 1.5, "evaluate_dense": 0.5},
    "search": {
        "trials": [
            {
                "number": 0,
                "name": "whole_pool",
                "values": {"kl": 0.5, "margin": 1.0},
                "held_out": {"kl": 0.6, "margin": 1.1},
                "params": {"alpha1": 1},
            },
            {
                "number": 1,
                "name": "trial",
                "values": {"kl": None, "margin": None},
                "held_out": None,
                "state": "FAIL",
            },
        ]
    },
    "provenance": {
        "config": {"name": "x", "pruning": {"ratio": 0.2}, "note": "n" * 7000},
        "config_hash": "c0",
        "settings_hash": "s0",
        "source": {"uri": "models:/a@x", "revision": "a/1"},
        "hashes": {"source": "s0", "checkpoint": "k0"},
    },
}


def write_stage(directory: Path) -> Path:
    """The directory of a report stage; returns it."""
    directory.mkdir()
    (directory / "report.json").write_text(json.dumps(REPORT))
    for name in ("plan.json", "timing.json"):
        (directory / name).write_text("{}")
    return directory
