"""The whole pipeline on a model that is never in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adapruner.models.storage.weights import stored_tensors, weight_files
from tests.pipelines.workplace import make_workplace

pytestmark = pytest.mark.slow

SETTINGS = {"method": "fisher+update", "finetune.method": "none", "evaluation.speed": "false"}


def test_a_model_that_is_streamed_through_all_stages_gives_the_same_checkpoint_and_report(
    tmp_path: Path,
) -> None:
    work = make_workplace(tmp_path)
    reports, plans = {}, set()
    for streaming in ("true", "false"):
        settings = SETTINGS | {"model.streaming": streaming, "name": f"is-{streaming}"}
        options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        result = work.compress(*options)
        assert result.code == 0, result.err
        assert ("streaming: the model needs" in result.out + result.err) == (streaming == "true")
        results = tmp_path / "runs" / f"is-{streaming}"
        reports[streaming] = json.loads((results / "report.json").read_text())
        plans.add((results / "plan.json").read_text())
    assert len(plans) == 1
    streamed, whole = reports["true"], reports["false"]
    assert streamed["metrics"] == whole["metrics"]
    tensors = [
        {name: tensor for file in weight_files(folder) for name, tensor in stored_tensors(file)}
        for folder in sorted((tmp_path / "runs").glob("*/checkpoint"))
    ]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    assert streamed["behaviour"]["texts"] == whole["behaviour"]["texts"]
    assert whole["behaviour"]["continuations"] and not streamed["behaviour"]["continuations"]
