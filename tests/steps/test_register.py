from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapruner.config import RunConfig
from adapruner.errors import UserError
from steps.register import refuse_broken, register

HEALTHY = {"text_ppl_seq128": 12.5, "piqa_acc": 0.5}
BROKEN = {"text_ppl_seq128": None, "piqa_acc": 0.5}


def test_a_model_that_predicts_nothing_is_neither_registered_nor_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    config = RunConfig.model_validate(
        {
            "name": "run",
            "model": {"source": "m"},
            "calibration": {"source": "t.txt"},
            "registry": {"name": "r"},
            "output_dir": str(tmp_path / "runs"),
        }
    )
    report = tmp_path / "report"
    report.mkdir()
    content = {
        "metrics": {"dense": HEALTHY, "pruned": HEALTHY, "finetuned": BROKEN},
        "finetune": {"method": "lora"},
    }
    (report / "report.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="finetuned model's text_ppl_seq128 is not a finite"):
        register.entrypoint(config, report, tmp_path / "finetuned")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize(("pruned", "refused"), [(BROKEN, True), (HEALTHY, False)])
def test_the_pruned_model_is_the_final_one_where_nothing_was_finetuned(
    pruned: dict[str, float | None], refused: bool
) -> None:
    report = {"metrics": {"pruned": pruned, "finetuned": None}, "finetune": {"method": "none"}}
    if refused:
        with pytest.raises(UserError, match="pruned model"):
            refuse_broken(report)
    else:
        refuse_broken(report)
    broken_but_healed = {"pruned": BROKEN, "finetuned": HEALTHY}
    refuse_broken({"metrics": broken_but_healed, "finetune": {"method": "lora"}})
