"""Speed of the pruned checkpoint relative to the dense one, measured in turns in one process.

Prefill is one forward pass over a prompt; decode is greedy generation of `new_tokens` tokens after
it, with the cache. Both are measured at every batch size and prompt length, in tokens per second.
A machine's speed drifts, so that the models take turns in each setting and the speedup is the ratio
of medians.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adapruner.config import EvaluationConfig, ModelConfig
from adapruner.efficiency.decode import Decoded, decode, synthetic_prompt
from adapruner.efficiency.results import Speed, SpeedProtocol, Speedup, Spread, Throughput
from adapruner.models.storage import checkpoint as ckpt
from adapruner.progress import announce, track

SHORTEST = 1e-9
"""Seconds: the least that a duration counts as, so that it can divide."""

Setting = tuple[int, int]
"""Batch size and tokens of the prompt."""


def measure_speed(
    dense: Path,
    pruned: Path,
    model: ModelConfig,
    evaluation: EvaluationConfig,
    others: Sequence[Setting] = (),
) -> Speed:
    """The speed of both checkpoints in every setting of `evaluation`, and in `others`."""
    models = {"dense": ckpt.load_model(dense, model), "pruned": ckpt.load_model(pruned, model)}
    batch_sizes = tuple(sorted(set(evaluation.batch_sizes)))
    prompt_tokens = tuple(sorted(set(evaluation.prompt_tokens)))
    settings = sorted({*itertools.product(batch_sizes, prompt_tokens), *others})
    runs = _run_in_turns(models, settings, evaluation.new_tokens, evaluation.repeats)
    throughput = {name: _by_setting(name, runs) for name in models}
    speedup = {_name(s): _speedup(runs["dense", s], runs["pruned", s]) for s in settings}
    protocol = SpeedProtocol(
        batch_sizes=batch_sizes,
        prompt_tokens=prompt_tokens,
        new_tokens=evaluation.new_tokens,
        repeats=evaluation.repeats,
        threads=torch.get_num_threads(),
        device=str(models["dense"].device),
        dtype=ckpt.compute_dtype(model),
    )
    return Speed(**throughput, speedup=speedup, protocol=protocol)


def measure_throughput(
    models: Mapping[str, Any], evaluation: EvaluationConfig
) -> dict[str, Throughput]:
    """The speed of models in memory, in the smallest setting of `evaluation`, by their names."""
    setting = min(evaluation.batch_sizes), min(evaluation.prompt_tokens)
    runs = _run_in_turns(models, [setting], evaluation.new_tokens, evaluation.repeats)
    return {name: _throughput(setting, runs[name, setting]) for name in models}


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles (linear between the values) and range of at least one value."""
    middle = statistics.median(values)
    low, _, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [middle] * 3
    )
    return Spread(median=middle, q1=low, q3=high, min=min(values), max=max(values))


def _run_in_turns(
    models: Mapping[str, Any], settings: Sequence[Setting], new_tokens: int, repeats: int
) -> dict[tuple[str, Setting], list[Decoded]]:
    """The runs of each model in each setting, without the first turn, which warms up."""
    prompt = sum(batch * length for batch, length in settings)
    written = sum(batch * new_tokens for batch, _ in settings)
    announce(
        f"speed: {repeats} turns and one to warm up, with {len(settings)} settings for each model; "
        f"a turn reads {prompt:,} and generates {written:,} tokens"
    )
    runs: dict[tuple[str, Setting], list[Decoded]] = {}
    for turn in track(range(repeats + 1), "speed"):
        for (batch, length), (name, model) in itertools.product(settings, models.items()):
            tokens = synthetic_prompt(batch, length, model.config.vocab_size)
            run = decode(model, tokens, new_tokens)
            if turn:
                runs.setdefault((name, (batch, length)), []).append(run)
    return runs


def _by_setting(name: str, runs: Mapping[tuple[str, Setting], list[Decoded]]) -> Any:
    return {_name(s): _throughput(s, taken) for (model, s), taken in runs.items() if model == name}


def _name(setting: Setting) -> str:
    batch, length = setting
    return f"batch_{batch}_prompt_{length}"


def _throughput(setting: Setting, runs: Sequence[Decoded]) -> Throughput:
    batch, length = setting
    decoded = runs[0].tokens.shape[1] - 1
    return Throughput(
        prefill_tokens_per_s=spread([batch * length / max(r.prefill_s, SHORTEST) for r in runs]),
        decode_tokens_per_s=spread([batch * decoded / max(r.decode_s, SHORTEST) for r in runs]),
    )


def _speedup(dense: Sequence[Decoded], pruned: Sequence[Decoded]) -> Speedup:
    return Speedup(
        prefill=_ratio([run.prefill_s for run in dense], [run.prefill_s for run in pruned]),
        decode=_ratio([run.decode_s for run in dense], [run.decode_s for run in pruned]),
    )


def _ratio(dense: Sequence[float], pruned: Sequence[float]) -> float:
    return statistics.median(dense) / max(statistics.median(pruned), SHORTEST)
