"""The objective of the search."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from adapruner.config import SearchConfig
from adapruner.config.search import ObjectiveName
from adapruner.evaluation.divergence import TOP_K, top_log_probs, window_divergences
from adapruner.evaluation.perplexity import perplexity
from adapruner.evaluation.tasks.margins import TaskMargins, row_losses, task_scales
from adapruner.models.storage.checkpoint import load_model, load_tokenizer
from adapruner.models.streamed.layers import stream_model
from adapruner.models.structures import describe_model
from adapruner.pruning.surgery import narrowed
from adapruner.search.trials.objective import STEP_TOKENS, WORST, Objective, ObjectiveData
from tests.adapruner.conftest import Workplace
from tests.adapruner.evaluation.tasks.test_margins import margins_of, resolved, write_word_rows
from tests.adapruner.pruning.plans import plan_for, plan_keeping
from tests.models import small_model, tokens


def objective_of(model: Any, windows: Tensor, name: Any, first_layer: int = 0) -> Objective:
    """An objective on text alone."""
    data = ObjectiveData(windows, Path(), Path())
    return Objective.of(model, data, SearchConfig(objective=name), first_layer)


@pytest.mark.parametrize("name", get_args(ObjectiveName))
def test_a_model_without_finite_logits_has_the_worst_value(name: ObjectiveName) -> None:
    model = small_model("llama")
    objective = objective_of(model, tokens(4, 16), name)
    assert objective.values(model) == pytest.approx(objective.dense, abs=1e-4)
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = math.nan
    assert objective.values(model) == (math.exp(WORST) if name == "perplexity" else WORST,)


@pytest.mark.parametrize("name", get_args(ObjectiveName))
def test_losses_of_all_windows_give_the_value(name: ObjectiveName) -> None:
    model, windows = small_model("llama"), tokens(2 * STEP_TOKENS // 16 + 3, 16)
    objective = objective_of(model, windows, name)
    with narrowed(model, plan_for(model, "channels")):
        parts = list(objective.losses(model))
        (value,) = objective.values(model)
        assert [len(part) for part in parts] == [STEP_TOKENS // 16] * 2 + [3]
        expected = perplexity(model, windows)
    if name == "kl":
        teacher = top_log_probs(model, windows, TOP_K)
        with narrowed(model, plan_for(model, "channels")):
            expected = window_divergences(model, windows, teacher).mean().item()
    assert value == pytest.approx(expected, rel=1e-5)
    assert objective.values_of([loss for part in parts for loss in part]) == (value,)


def test_states_below_the_first_cut_layer_change_no_loss() -> None:
    model, windows = small_model("llama"), tokens(70, 16)
    structures = describe_model(model)
    keep = [
        (range(24 if i >= 2 else 0, w.mlp_channels), range(w.query_heads))
        for i, w in enumerate(structures.layers)
    ]
    whole, resumed = (objective_of(model, windows, "kl", first) for first in (0, 2))
    with narrowed(model, plan_keeping(structures, keep)):
        assert list(whole.losses(model)) == list(resumed.losses(model))


def test_weighted_objectives_add_in_nats() -> None:
    model, windows = small_model("llama"), tokens(70, 16)
    (plain,) = objective_of(model, windows, "perplexity").values(model)
    weighted = objective_of(model, windows, {"perplexity": 0.5})
    assert weighted.values(model) == pytest.approx((0.5 * math.log(plain),), rel=1e-5)


def test_objectives_of_a_list_have_a_value_each() -> None:
    model, windows = small_model("llama"), tokens(70, 16)
    names = ("kl", "perplexity")
    alone = [objective_of(model, windows, name) for name in names]
    listed = objective_of(model, windows, names)
    assert listed.names == names
    assert listed.dense == pytest.approx([single.dense[0] for single in alone], abs=1e-5)
    with narrowed(model, plan_for(model, "channels")):
        expected = [single.values(model)[0] for single in alone]
        assert listed.values(model) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["kl", "perplexity"])
def test_a_streamed_model_has_the_losses_of_the_whole_one(name: str, workplace: Workplace) -> None:
    windows, search = tokens(150, 16), SearchConfig(objective=name)
    data = ObjectiveData(windows, workplace.checkpoint, workplace.checkpoint)
    losses = []
    for model in (
        load_model(workplace.checkpoint, workplace.model),
        stream_model(workplace.checkpoint, torch.device("cpu"), torch.float32),
    ):
        objective = Objective.of(model, data, search, first_layer=2)
        layers = list(plan_for(model, "nothing").layers)
        plan = plan_for(model, "channels")
        plan = plan.model_copy(update={"layers": (*layers[:2], *plan.layers[2:])})
        with narrowed(model, plan):
            losses.append([objective.dense, *objective.losses(model)])
    assert losses[0] == losses[1] and len(losses[0]) > 2


def test_margins_of_one_half_of_the_rows_are_minimized_and_the_other_half_is_held_out(
    workplace: Workplace, tmp_path: Path
) -> None:
    folder = write_word_rows(tmp_path / "rows", {"piqa": 20, "openbookqa": 20})
    tasks = resolved(workplace.model, folder, tmp_path / "tasks", "piqa", "openbookqa", rows=20)
    model, windows = load_model(workplace.checkpoint, workplace.model), tokens(4, 16)
    search = SearchConfig(objective={"kl": 1.0, "margin": 0.5}, tasks=("piqa", "openbookqa"))
    plan, tokenizer = plan_for(model, "channels"), load_tokenizer(workplace.checkpoint)
    halves = [TaskMargins.read(tokenizer, tasks, slice(n, None, 2)) for n in (0, 1)]
    scales = [task_scales(half.questions, margins_of(half, model)) for half in halves]
    assert [len(set(half)) for half in scales] == [2, 2]  # one of each task
    with narrowed(model, plan):
        margins = [margins_of(half, model) for half in halves]
        every = margins_of(TaskMargins.read(tokenizer, tasks), model)
    assert [len(half) for half in margins] == [20, 20]
    assert sorted(margins[0] + margins[1]) == pytest.approx(sorted(every), abs=1e-4)
    losses = [fmean(row_losses(*half)) for half in zip(margins, scales, strict=True)]
    divergence, both = objective_of(model, windows, "kl"), ("margin", "kl")
    for held_out in (False, True):
        data = ObjectiveData(windows, workplace.checkpoint, tasks, held_out)
        objective = Objective.of(model, data, search)
        listed = Objective.of(model, data, search.model_copy(update={"objective": both}))
        with narrowed(model, plan):
            (nats,) = divergence.values(model)
            expected = nats + 0.5 * losses[held_out]
            assert objective.values(model) == pytest.approx((expected,), abs=1e-4)
            separate = (losses[held_out], nats)
            assert listed.values(model) == pytest.approx(separate, abs=1e-4)
