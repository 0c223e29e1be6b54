"""What is computed from a streamed model is what is computed from the whole one, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.evaluation.divergence import top_log_probs
from adapruner.evaluation.perplexity import mean_loss
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.statistics import importance_table
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage.weights import weight_files
from adapruner.models.streamed.layers import stream_model
from adapruner.pruning.apply import prune
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.sensitivity import measure_sensitivity
from adapruner.pruning.surgery import narrowed
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from tests.adapruner.models.checkpoints import weights_of
from tests.adapruner.pruning.plans import plan_for, plan_with_subsets
from tests.adapruner.pruning.pools import write_pool
from tests.models import KINDS, small_model, tokens

DOMAIN = torch.tensor([0] * 6 + [1] * 3)


class Both(NamedTuple):
    """A model, whole and streamed, and a plan for it."""

    whole: Any
    streamed: Any
    plan: PruningPlan


def both(kind: str, folder: Path, what: str = "ragged") -> Both:
    small_model(kind).save_pretrained(folder, max_shard_size="20KB")
    whole = ckpt.load_model(folder, ModelConfig(source="", device="cpu"))
    return Both(
        whole, stream_model(folder, torch.device("cpu"), torch.float32), plan_for(whole, what)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_cut_and_updated_model_is_judged_equally(kind: str, tmp_path: Path) -> None:
    models, windows = both(kind, tmp_path / "dense"), tokens(7, 12, seed=1)
    values = []
    for number, model in enumerate((models.whole, models.streamed)):
        folder = tmp_path / str(number)
        folder.mkdir()
        grams = compute_gram_matrices(model, tokens(9, 12), DOMAIN, folder)
        with narrowed(model, models.plan, grams.updated_projections(model, models.plan)):
            cut = mean_loss(model, windows)
        values.append((cut, mean_loss(model, windows), top_log_probs(model, windows, 8)))
    (cut, dense, teacher), (streamed_cut, streamed_dense, streamed_teacher) = values
    assert (streamed_cut, streamed_dense) == (cut, dense) and cut != dense
    assert all(torch.equal(*pair) for pair in zip(teacher, streamed_teacher, strict=True))
    for file in sorted((tmp_path / "0").iterdir()):
        assert file.read_bytes() == (tmp_path / "1" / file.name).read_bytes()


@pytest.mark.parametrize("kind", ["gemma2", "qwen3-moe-mixed"])
def test_sensitivities_are_equal(kind: str, tmp_path: Path) -> None:
    models, windows = both(kind, tmp_path / "dense"), tokens(6, 12, seed=1)
    scores = score(importance_table(models.whole, tokens(5, 12), []), Recipe(samples=(0, 1))).mlp
    (tmp_path / "grams").mkdir()
    grams = compute_gram_matrices(models.whole, tokens(9, 12), DOMAIN, tmp_path / "grams")
    measured: list[dict[int, list[float]]] = [{}, {}]
    rows = [
        measure_sensitivity(model, scores, windows, grams, {2: [0.5] * 4}, seen.__setitem__)
        for model, seen in zip(models[:2], measured, strict=True)
    ]
    assert torch.equal(*rows) and measured[0] == measured[1] and set(measured[0]) == {0, 1, 3}


def cases() -> list[tuple[str, Callable[[Any], PruningPlan], str, int]]:
    def ragged(model: Any) -> PruningPlan:
        return plan_for(model, "ragged")

    families = [(kind, ragged, "least_squares", 0) for kind in KINDS]
    return [
        *families,
        ("llama", ragged, "least_squares", 3),
        ("llama-mha", ragged, "bias", 0),
        ("llama", plan_with_subsets, "none", 0),
    ]


@pytest.mark.parametrize(("kind", "plan_of", "method", "epochs"), cases())
def test_a_pruned_checkpoint_holds_the_same_tensors(
    kind: str, plan_of: Any, method: Any, epochs: int, tmp_path: Path
) -> None:
    dense, stage = tmp_path / "dense", tmp_path / "stage"
    stage.mkdir()
    model = small_model(kind).to(torch.bfloat16)
    model.save_pretrained(dense, max_shard_size="20KB")
    plan_of(model).write(stage)
    write_pool(stage)
    settings = ModelConfig(source=str(dense), device="cpu")
    for streaming in (False, True):
        out = tmp_path / str(streaming)
        out.mkdir()
        device = settings.model_copy(update={"streaming": streaming})
        prune(dense, stage, stage, device, ReconstructionConfig(method=method, epochs=epochs), out)
    whole, streamed = (weights_of(tmp_path / str(streaming)) for streaming in (False, True))
    assert whole.keys() == streamed.keys()
    assert all(torch.equal(whole[name], streamed[name]) for name in whole)
    assert len(weight_files(tmp_path / "True")) == 5 and len(weight_files(tmp_path / "False")) == 1
    others = {
        streaming: {
            file.name: file.read_bytes()
            for file in (tmp_path / str(streaming)).iterdir()
            if "safetensors" not in file.name
        }
        for streaming in (False, True)
    }
    assert others[True] == others[False]
    loaded = ckpt.load_model(tmp_path / "True", settings)
    assert not any(weight.is_meta for weight in loaded.parameters())
