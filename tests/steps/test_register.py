from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapruner.errors import UserError
from steps.register import register
from tests.steps.configs import minimal_config


def test_a_model_without_a_finite_perplexity_is_neither_logged_nor_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    report = tmp_path / "report"
    report.mkdir()
    metrics = {"text_ppl_seq128": None, "piqa_acc": 0.5}
    recovery = {"method": "lora", "loss": "distill"}
    content = {"metrics": {"finetuned": metrics}, "recovery": recovery}
    (report / "report.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="text_ppl_seq128"):
        register.entrypoint(minimal_config(tmp_path), report, tmp_path / "finetuned", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
