"""The whole pipeline with trained gates on residual subsets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.pipelines import small
from tests.pipelines.workplace import make_workplace

pytestmark = pytest.mark.slow


def test_a_model_with_residual_subsets_is_pruned_tuned_and_measured(tmp_path: Path) -> None:
    work = make_workplace(tmp_path)
    settings = {
        "method": "disp-llm", "search.gates.steps": 3,
        "pruning.layout": "residual_subsets", "pruning.ratio": 0.3,
    }  # fmt: skip
    options = [w for k, v in settings.items() for w in ("--set", f"{k}={v}")]
    result = work.compress(*options)
    assert result.code == 0, result.err
    assert result.ran >= small.AFTER_PRUNING
    report = work.report()
    assert report["plan"]["layout"] == "residual_subsets"
    assert report["ratio"]["achieved"] == pytest.approx(0.3, abs=0.02)
    assert all(layer["mlp_in"] <= layer["residual"] for layer in report["plan"]["layers"])
    model = AutoModelForCausalLM.from_pretrained(
        work.results / "checkpoint", trust_remote_code=True
    )
    assert type(model).__name__.startswith("PerLayer")
    assert model.num_parameters() == report["params"]["pruned"]
    assert torch.isfinite(model(torch.arange(3, 12)[None]).logits).all()
