"""Every registered reconstruction method: the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.hashing import hash_directory
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.apply import prune
from adapruner.pruning.reconstruction import METHODS
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.pruning.pools import write_pool
from tests.models import small_model, tokens


@pytest.mark.parametrize("what", ["channels", "ragged"])
@pytest.mark.parametrize("method", METHODS)
def test_method_writes_a_reproducible_checkpoint_and_leaves_its_inputs(
    method: str, what: str, tmp_path: Path
) -> None:
    dense, stage = tmp_path / "dense", tmp_path / "stage"
    stage.mkdir()
    model = small_model("llama")
    model.save_pretrained(dense)
    plan = plan_for(model, what)
    plan.write(stage)
    write_pool(stage)
    inputs = [hash_directory(folder) for folder in (dense, stage)]
    hashes = set()
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        settings = ModelConfig(source=str(dense), device="cpu")
        prune(dense, stage, stage, settings, ReconstructionConfig(method=method), out)
        hashes.add(hash_directory(out))
    assert len(hashes) == 1, "the same inputs give the same checkpoint"
    assert inputs == [hash_directory(folder) for folder in (dense, stage)]
    widths = [layer.mlp_channels for layer in ckpt.inspect(out).layers]
    assert widths == [len(layer.channels()) for layer in plan.layers]
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.isfinite(reloaded(tokens(2, 12).long()).logits).all()
