"""The cost of a trial, the sensitivity, the update and a LoRA step, against plain passes.

    python -m benchmarks.ratios [-c configs/demo.yaml] [--trials 64] [--set KEY=VALUE]

The model and the texts are those of the configuration. Ratios, in one process:

- update: the gram matrices of some update samples against a forward pass over them, and the solves
  of one plan against a forward pass over all update samples;
- sensitivity: all layers against one forward pass over its windows times the number of layers;
- trial: the mean over a study, with what the sampler and the database take, against a forward pass
  over the objective text, which is measured again between the trials;
- naive: a trial that passes the calibration samples forward and backward, copies the model, cuts
  the copy and passes the objective text through it, against the mean trial, which updates as well;
- LoRA: a step of `train` against a forward and backward pass over the same batch that leaves all
  weights a gradient, and against one that leaves only the adapters a gradient.

A quarter of an hour or more.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from adapruner.config import RunConfig
from adapruner.data.build_pool import PoolSettings, build_pool
from adapruner.data.pool import Pool
from adapruner.data.texts.sources import resolve_texts
from adapruner.evaluation.perplexity import batches_of
from adapruner.files import write_json
from adapruner.importance.needs import gradient_groups
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.statistics import importance_table, reference_subset
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage import sources
from adapruner.pruning.sensitivity import WINDOWS, measure_sensitivity
from adapruner.pruning.surgery import apply
from adapruner.pruning.updates.gram_matrices import compute_gram_matrices
from adapruner.recovery.adapters import add_adapters
from adapruner.recovery.training.examples import Example
from adapruner.recovery.training.training import TrainingData, train
from adapruner.search.inputs import SearchInputs
from adapruner.search.trials.study import is_stopped, owned_study, run_trials
from adapruner.search.trials.task import SearchTask, TrialRunner
from benchmarks.cost import interleaved, plain_pass, show
from pipelines.config_file import read

UPDATE_SAMPLES = 48
"""Samples of one turn of the gram matrices."""

BETWEEN = 8
"""Trials between two forward passes over the objective text."""

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
        measure_sensitivities(task, model)
        measure_study(task, model, f"sqlite:///{root}/study.db")
        measure_lora(model, pool, config)


def make_task(root: Path, model: Any, pool: Pool, config: RunConfig) -> SearchTask:
    """What a search of the run has to do."""
    names = ("importance", "gram_matrices", "tasks", "turns")
    folders = {name: root / name for name in names}
    for path in folders.values():
        path.mkdir()
    samples = pool.calibration
    reference = reference_subset(len(samples), config.search.set_size, config.seed)
    domain, groups = pool.domain[: len(samples)], gradient_groups(config)
    table = importance_table(model, samples, reference, domain, groups=groups)
    table.write(folders["importance"])
    compute_gram_matrices(model, pool.update, pool.domain, folders["gram_matrices"])
    write_json(folders["tasks"] / "objective_tasks.json", {})
    inputs = SearchInputs(
        root / "dense", root / "pool", folders["importance"], folders["gram_matrices"],
        folders["tasks"],
    )  # fmt: skip
    return SearchTask.read(inputs, config.plan_config)


def measure_update(task: SearchTask, model: Any, out: Path) -> None:
    samples, domain = task.pool.update[:UPDATE_SAMPLES], task.pool.domain[:UPDATE_SAMPLES]
    everything = Recipe(samples=tuple(range(task.planner.table.samples)))
    plan, grams = task.planner.plan(everything), task.grams
    assert grams is not None, "the configuration has no update"
    ours, solves, plain = interleaved(
        lambda: compute_gram_matrices(model, samples, domain, out),
        lambda: dict(grams.updated_projections(model, plan)),
        lambda: forward(model, samples),
    )
    show("gram matrices / forward over the same samples", ours, plain)
    rounds = len(task.pool.update) / len(samples)
    show("solves of a plan / forward over all update samples", solves, [rounds * s for s in plain])


def measure_sensitivities(task: SearchTask, model: Any) -> None:
    windows = task.pool.objective
    scores = score(task.planner.table, Recipe(samples=(0,), alpha_token=0.5)).mlp
    chosen = windows[:: max(len(windows) // WINDOWS, 1)][:WINDOWS]
    sensitivity, plain = interleaved(
        lambda: measure_sensitivity(model, scores, windows, task.grams, {}, lambda *_: None),
        lambda: forward(model, chosen),
    )
    every = [len(scores) * s for s in plain]
    show("sensitivity / forward over its windows x layers", sensitivity, every)


def measure_study(task: SearchTask, model: Any, storage: str) -> None:
    windows = task.pool.objective
    search, seed = task.config.search, task.config.seed
    with owned_study("ratios", storage) as study:
        runner = task.runner(model, task.objective(model), study)
        between = Between(runner, windows)
        start = time.perf_counter()
        trials = run_trials(
            study, runner.space, search, seed, between.evaluate, runner.objective.values_of
        )
        seconds = time.perf_counter() - start - sum(between.plain)
    stopped = sum(map(is_stopped, trials))
    seen = sum(trial.user_attrs["windows"] for trial in trials) / (len(trials) * len(windows))
    print(f"{len(trials)} trials, {stopped} stopped early, {seen:.0%} of the windows evaluated")
    mean = seconds / len(trials)
    show("mean trial / forward over the objective text", [mean], between.plain)
    recipe = Recipe(samples=tuple(range(task.planner.table.samples)))
    (naive,) = interleaved(lambda: naive_trial(task, model, recipe))
    show("naive trial / mean trial", naive, [mean])


def naive_trial(task: SearchTask, model: Any, recipe: Recipe) -> None:
    plain_pass(model, task.pool.calibration.long())
    cut = copy.deepcopy(model)
    apply(cut, task.planner.plan(recipe))
    forward(cut, task.pool.objective)


class Between:
    """Evaluates recipes, and every BETWEEN times runs the dense model over the objective text."""

    def __init__(self, runner: TrialRunner, windows: Tensor) -> None:
        self.runner, self.windows = runner, windows
        self.plain: list[float] = []
        self.count = 0

    def evaluate(self, *arguments: Any) -> Any:
        if self.count % BETWEEN == 0:
            start = time.perf_counter()
            forward(self.runner.evaluator.model, self.windows)
            self.plain.append(time.perf_counter() - start)
        self.count += 1
        return self.runner.evaluate(*arguments)


def measure_lora(model: Any, pool: Pool, config: RunConfig) -> None:
    settings = config.finetune.model_copy(update={"steps": STEPS})
    size = settings.batch_size
    examples = [Example(window.tolist(), window.tolist()) for window in pool.update[: STEPS * size]]
    data = TrainingData(examples, None, pool.objective[:1, :16].clone())  # hardly any held-out text
    adapted = add_adapters(copy.deepcopy(model), settings)
    model.requires_grad_(True)
    batches = pool.update[: STEPS * size].split(size)
    ours, every, adapters = interleaved(
        lambda: train(adapted, data, settings, 0),
        lambda: backward(model, batches),
        lambda: backward(adapted, batches),
    )
    model.requires_grad_(False)
    show("LoRA steps / forward and backward, all weights", ours, every)
    show("LoRA steps / forward and backward, adapters", ours, adapters)


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
