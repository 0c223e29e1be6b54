"""The cost of a trial, the sensitivity, the update and a LoRA step, against plain passes.

    python -m benchmarks.ratios [-c configs/demo.yaml] [--trials 64] [--set KEY=VALUE]

The model and the texts are those of a configuration, which must have a search over importance, the
update `least_squares`, one objective on text, and no ratio of latency. Ratios, in one process:

- update: the gram matrices of 48 update samples against a forward pass over them, and the solves
  of one plan against a forward pass over all update samples (scaled up from the 48);
- sensitivity: all layers against one forward pass over its windows times the number of layers;
- trial: the mean over a study, in which hopeless trials end early, with what the sampler and the
  database take; and the mean of the trials that ran to their end; both against a forward pass over
  the objective text;
- naive trial: passes the calibration samples forward and backward, copies the model, cuts the copy
  and passes the objective text through it, but updates nothing; against both means;
- LoRA: steps of `train` on the loss of the text, without dropout and recomputation, against forward
  and backward passes over the same batches, for the gradients of all weights, and of the adapters.

Forward passes and naive trials run between the trials. A quarter of an hour or more.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from adapruner.config import RunConfig
from adapruner.data.build_pool import PoolSettings, build_pool
from adapruner.data.pool import Pool
from adapruner.data.texts.sources import resolve_texts
from adapruner.errors import UserError
from adapruner.evaluation.perplexity import batches_of
from adapruner.files import write_json
from adapruner.importance.needs import gradient_groups
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.statistics import importance_table, reference_subset
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage import sources
from adapruner.pruning.sensitivity import chosen_windows, measure_sensitivity
from adapruner.pruning.surgery import apply
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from adapruner.recovery.adapters import add_adapters
from adapruner.recovery.training.examples import Example
from adapruner.recovery.training.training import TrainingData, train
from adapruner.search.inputs import SearchInputs
from adapruner.search.trials.study import is_stopped, owned_study, run_trials
from adapruner.search.trials.task import SearchTask
from benchmarks.cost import interleaved, plain_pass, seconds_of, show
from pipelines.config_file import read

UPDATE_SAMPLES = 48
"""Samples of one turn of the gram matrices."""

PASSES, NAIVE = 8, 32
"""Trials between two forward passes over the objective text, and between two naive trials."""

STEPS = 4
"""LoRA steps of one turn."""


def main(config: RunConfig) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("dense", "pool"):
            (root / name).mkdir()
        sources.materialize(sources.resolve(config.model), root / "dense")
        settings = PoolSettings(config.calibration, config.finetune, config.evaluation, config.seed)
        build_pool(resolve_texts(config, root).sources, settings, root / "dense", root / "pool")
        model, pool = ckpt.load_model(root / "dense", config.model), Pool.read(root / "pool")
        print(f"{torch.get_num_threads()} threads, {model.dtype}", flush=True)
        task = make_task(root, model, pool, config)
        measure_update(task, model, root / "turns")
        measure_layers(task, model)
        measure_study(task, model, f"sqlite:///{root}/study.db")
        measure_lora(model, pool, config)


def make_task(root: Path, model: Any, pool: Pool, config: RunConfig) -> SearchTask:
    """What a search of the run has to do."""
    if config.reconstruction.method != "least_squares":
        raise UserError("the configuration needs reconstruction.method: least_squares")
    for name in ("importance", "gram_matrices", "tasks"):
        (root / name).mkdir()
    samples, groups = pool.calibration, gradient_groups(config)
    reference = reference_subset(len(samples), config.search.set_size, config.seed)
    table = importance_table(model, samples, reference, pool.calibration_domain, groups=groups)
    table.write(root / "importance")
    compute_gram_matrices(model, pool.update, pool.domain, root / "gram_matrices")
    write_json(root / "tasks" / "objective_tasks.json", {})
    inputs = SearchInputs(
        root / "dense", root / "pool", root / "importance", root / "gram_matrices", root / "tasks"
    )
    return SearchTask.read(inputs, config.plan_config)


def measure_update(task: SearchTask, model: Any, out: Path) -> None:
    out.mkdir()
    samples, domain = task.pool.update[:UPDATE_SAMPLES], task.pool.domain[:UPDATE_SAMPLES]
    plan, grams = task.planner.plan(all_samples(task)), task.grams
    assert grams is not None
    statistics, solves, plain = interleaved(
        lambda: compute_gram_matrices(model, samples, domain, out),
        lambda: dict(grams.updated_projections(model, plan)),
        lambda: forward(model, samples),
    )
    show("gram matrices / forward over the same samples", statistics, plain)
    scale = len(task.pool.update) / len(samples)
    show("solves of a plan / forward over all update samples", solves, [scale * s for s in plain])


def measure_layers(task: SearchTask, model: Any) -> None:
    windows, scores = task.pool.objective, score(task.planner.table, all_samples(task)).mlp
    sensitivity, plain = interleaved(
        lambda: measure_sensitivity(model, scores, windows, task.grams, {}, lambda *_: None),
        lambda: forward(model, chosen_windows(windows)),
    )
    for_each_layer = [len(scores) * s for s in plain]
    show("sensitivity / forward over its windows x layers", sensitivity, for_each_layer)


def measure_study(task: SearchTask, model: Any, storage: str) -> None:
    windows, plain, naive = task.pool.objective, list[float](), list[float]()
    with owned_study("ratios", storage) as study:
        runner = task.runner(model, task.objective(model), study)
        count = 0

        def evaluate(*arguments: Any) -> Any:
            nonlocal count
            if count % PASSES == 0:
                plain.append(seconds_of(lambda: forward(model, windows)))
            if count % NAIVE == 0:
                naive.append(seconds_of(lambda: naive_trial(task, model)))
            count += 1
            return runner.evaluate(*arguments)

        start = time.perf_counter()
        trials = run_trials(
            study, runner.space, task.config.search, task.config.seed, evaluate,
            runner.objective.values_of,
        )  # fmt: skip
        seconds = time.perf_counter() - start - sum(plain) - sum(naive)
    whole = [t.user_attrs["seconds"]["total_s"] for t in trials if not is_stopped(t)]
    seen = sum(trial.user_attrs["windows"] for trial in trials) / (len(trials) * len(windows))
    print(f"{len(trials)} trials, {len(whole)} to their end, {seen:.0%} of the windows evaluated")
    means = {"trial": seconds / len(trials), "trial that ran to its end": fmean(whole)}
    for name, mean in means.items():
        show(f"{name} / forward over the objective text", [mean], [fmean(plain)])
        show(f"naive trial / {name}", [fmean(naive)], [mean])


def naive_trial(task: SearchTask, model: Any) -> None:
    plain_pass(model, task.pool.calibration.long())
    cut = copy.deepcopy(model)
    apply(cut, task.planner.plan(all_samples(task)))
    forward(cut, task.pool.objective)


def measure_lora(model: Any, pool: Pool, config: RunConfig) -> None:
    size, length = config.finetune.batch_size, pool.update.shape[1]
    windows = pool.update[: STEPS * size]
    if len(windows) < STEPS * size:
        raise UserError(f"calibration.update_size: {STEPS * size} samples or more are needed")
    plain = {"steps": STEPS, "sequence_length": length, "recompute": False, "dropout": 0.0}
    settings = config.finetune.model_copy(update=plain)
    examples = [Example(window.tolist(), window.tolist()) for window in windows]
    data = TrainingData(examples, None, pool.objective[:1, :16].clone())  # hardly any held-out text
    adapted = add_adapters(copy.deepcopy(model), settings)
    model.requires_grad_(True)
    batches = windows.split(size)
    steps, all_weights, adapters = interleaved(
        lambda: train(adapted, data, settings, 0),
        lambda: backward(model, batches),
        lambda: backward(adapted, batches),
    )
    model.requires_grad_(False)
    show("LoRA steps / forward and backward, all weights", steps, all_weights)
    show("LoRA steps / forward and backward, adapters", steps, adapters)


def all_samples(task: SearchTask) -> Recipe:
    return Recipe(samples=tuple(range(task.planner.table.samples)), alpha_token=0.5)


@torch.inference_mode()
def forward(model: Any, windows: Tensor) -> None:
    for batch in batches_of(windows):
        model(batch.to(model.device).long(), use_cache=False)


def backward(model: Any, batches: tuple[Tensor, ...]) -> None:
    for batch in batches:
        ids = batch.to(model.device).long()
        model(ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)


def parse(arguments: list[str]) -> RunConfig:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", dest="path", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parsed = parser.parse_args(arguments)
    overrides = (f"search.trials={parsed.trials}", *parsed.overrides)
    return read(parsed.path, overrides)[1]


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
