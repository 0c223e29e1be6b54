"""`activations: dense`: the pruned checkpoint is the model of the selected trial."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.apply import prune
from adapruner.pruning.plan import Update
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from tests.adapruner.models.checkpoints import weights_of
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.pruning.pools import write_pool
from tests.models import KINDS, small_model, tokens

SETTINGS = ReconstructionConfig(epochs=0, activations="dense")
DOMAIN = torch.tensor([0] * 6 + [1] * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_computes_what_the_trial_did(kind: str, tmp_path: Path) -> None:
    dense, stage, grams = (tmp_path / name for name in ("dense", "stage", "grams"))
    for folder in (stage, grams):
        folder.mkdir()
    small_model(kind).save_pretrained(dense, max_shard_size="20KB")
    settings = ModelConfig(source=str(dense), device="cpu")
    model, windows = ckpt.load_model(dense, settings), tokens(5, 12, seed=1).long()
    plan = plan_for(model, "ragged")
    plan = plan.model_copy(update={"update": Update(shares=(0.3, 0.7), ridge=0.05)})
    plan.write(stage)
    write_pool(stage)
    matrices = compute_gram_matrices(model, tokens(9, 12), DOMAIN, grams)
    with torch.no_grad(), narrowed(model, plan, matrices.updated_projections(model, plan)):
        expected = model(windows).logits
    for streaming in (False, True):
        out = tmp_path / str(streaming)
        out.mkdir()
        device = settings.model_copy(update={"streaming": streaming})
        prune(dense, stage, stage, device, SETTINGS, out, grams)
    pruned = ckpt.load_model(tmp_path / "False", settings)
    with torch.no_grad():
        torch.testing.assert_close(pruned(windows).logits, expected, atol=1e-4, rtol=1e-4)
    whole, streamed = (weights_of(tmp_path / str(streaming)) for streaming in (False, True))
    assert whole.keys() == streamed.keys()
    assert all(torch.equal(whole[name], streamed[name]) for name in whole)
