from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapruner.config import RunConfig
from steps.zenml_support import workspace
from steps.report import report

STAGES = (
    "resolve_source",
    "texts",
    "load_model",
    "filter_calibration_pool",
    "estimate_importance",
    "search",
    "prune",
    "expect_tokens",
    "finetune",
    "evaluate_dense",
    "evaluate_pruned",
    "evaluate_finetuned",
    "measure_speed",
    "compare_behaviour",
)


def source(given: str, location: Path) -> dict[str, Any]:
    return {
        "given": given,
        "kind": "directory",
        "location": str(location),
        "revision": None,
        "content_hash": "c0",
    }


def test_neither_passwords_nor_places_on_this_machine_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_scratch", lambda: tmp_path)
    stages = {name: tmp_path / name for name in STAGES}
    for path in stages.values():
        path.mkdir()
        (path / "timing.json").write_text('{"seconds": 1.0}')
    for name in ("load_model", "prune"):
        (stages[name] / "model.safetensors").write_bytes(b"")
    (stages["finetune"] / "checkpoint").mkdir()
    (stages["search"] / "plan.json").write_text("{}")
    named = {
        "resolve_source/source.json": source("m", tmp_path / "models" / "m"),
        "texts/texts.json": {"t.txt": source("t.txt", tmp_path / "t.txt")},
    }
    for file, content in named.items():
        (tmp_path / file).write_text(json.dumps(content))

    def written(storage: str) -> tuple[dict[str, Any], Path]:
        config = RunConfig.model_validate(
            {
                "name": "run",
                "model": {"source": "m"},
                "calibration": {"source": "t.txt"},
                "search": {"storage": storage},
                "registry": {"name": "r"},
            }
        )
        out = report.entrypoint(config, **stages)
        return json.loads((out / "report.json").read_text()), out

    content, out = written("postgresql://u:SECRET@host/s?password=SECRET")
    for file in out.iterdir():
        text = file.read_text()
        assert "SECRET" not in text, file.name
        assert str(tmp_path) not in text, file.name
    facts = content["provenance"]
    assert facts["config"]["search"]["storage"] == "postgresql://host/s"
    wanted = {"given": "m", "kind": "directory", "revision": None, "content_hash": "c0"}
    assert facts["source"] == wanted
    assert facts["texts"] == {"t.txt": {**wanted, "given": "t.txt"}}
    other, _ = written("postgresql://u:OTHER@host/s")
    assert facts["config_hash"] == other["provenance"]["config_hash"]
