"""The whole pipeline with 2:4 sparsity, trained by AST."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from adapruner.models.semi_structured import check_sparse, projections
from tests.pipelines import small
from tests.pipelines.workplace import make_workplace

pytestmark = pytest.mark.slow


def test_a_model_is_made_sparse_and_trained(tmp_path_factory: pytest.TempPathFactory) -> None:
    work = make_workplace(tmp_path_factory.mktemp("project"))
    content = small.config(work.folder)
    config = content["parameters"]["config"]
    config |= {"method": "ast"}
    del config["pruning"]
    (work.folder / "run.yaml").write_text(yaml.safe_dump(content))
    result = work.compress()
    assert result.code == 0, result.err
    assert result.ran | result.cached >= small.AFTER_PRUNING
    report = work.report()
    assert report["params"]["pruned"] == report["params"]["dense"]
    assert report["recovery"]["method"] == "ast"
    checkpoint = work.results / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    check_sparse(model)
    zeros = sum(int((getattr(*owner) == 0).sum()) for owner in projections(model).values())
    assert report["plan"]["sparsity"]["zeros"] == zeros
    page = (work.results / "report.html").read_text()
    assert "none is removed" in page and "sparse tensor cores" in page
    assert torch.isfinite(model(torch.arange(3, 12)[None]).logits).all()
    assert json.loads((checkpoint / "config.json").read_text())["model_type"] == "llama"

    refused = work.compress("--set", "search.metric=searched")
    assert refused.code == 2
    assert "magnitude or wanda" in refused.err.splitlines()[-1]

    branched = work.compress("--set", "finetune.branch_rank=4")
    assert branched.code == 0, branched.err
    assert (checkpoint / "adapter" / "adapter_model.safetensors").is_file()
    assert work.report()["recovery"]["branch_params"] > 0
    again = work.compress("--set", "model.source=models:/small-pruned/2")
    assert again.code == 2
    assert "has an adapter" in again.err.splitlines()[-1]
