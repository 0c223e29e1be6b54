"""Whether a model that is cut to a target of latency takes as long as planned.

    python benchmarks/latency.py

A random Llama is large enough that time is proportional to work. Each round measures a table, plans
and cuts by it, and runs the dense and the cut model in turns. Run it on a quiet machine: beside
other processes, caches are shared, and a wide layer loses more by it than a narrow one.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapruner.config import DeviceConfig, PruningConfig
from adapruner.efficiency.decode import decode, synthetic_prompt
from adapruner.importance.scores import Scores
from adapruner.models.storage.checkpoint import load_model
from adapruner.models.structures import describe_model
from adapruner.pruning.allocation.allocate import allocate
from adapruner.pruning.costs.costs import read_inputs
from adapruner.pruning.costs.measure_latency import measure_latency
from adapruner.pruning.surgery import apply
from adapruner.pruning.target import PruningTarget

CPU = DeviceConfig(device="cpu")
RATIO, ROUNDS, REPEATS, TOLERANCE = 0.25, 5, 61, 0.05
LAYOUTS: tuple[Any, ...] = ("per_layer", "uniform")


def main() -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    failed = 0
    print("| layout | planned | measured, each round | median | |\n| --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        LlamaForCausalLM(config()).save_pretrained(checkpoint)
        for layout in LAYOUTS:
            left = [time_left(checkpoint, layout) for _ in range(ROUNDS)]
            middle, planned = statistics.median(left), 1 - RATIO
            is_met = abs(middle / planned - 1) <= TOLERANCE
            failed += not is_met
            rounds = ", ".join(f"{value:.3f}" for value in left)
            state = "met" if is_met else "missed"
            print(f"| {layout} | {planned:.3f} | {rounds} | {middle:.3f} | {state} |", flush=True)
    return int(failed > 0)


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=96,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )


def time_left(checkpoint: Path, layout: Any) -> float:
    """The share of the time of a prefill of 256 tokens that a model cut by a new table takes."""
    pruning = PruningConfig(
        ratio=RATIO, ratio_of="latency", layout=layout, protect_first=1, protect_last=1
    )
    table = checkpoint / "table"
    table.mkdir(exist_ok=True)
    measure_latency(checkpoint, CPU, pruning).write(table)
    dense, cut = load_model(checkpoint, CPU), load_model(checkpoint, CPU)
    shape, inputs = describe_model(dense), read_inputs(checkpoint, table)
    plan = allocate(any_scores(shape.layers), PruningTarget(shape, pruning, inputs), {})
    apply(cut, plan)
    prompt = synthetic_prompt(1, 256, dense.config.vocab_size)
    turns = [
        [decode(model, prompt, 1).prefill_s for model in (dense, cut)] for _ in range(REPEATS + 1)
    ]
    return statistics.median(after / before for before, after in turns[1:])


def any_scores(layers: Any) -> Scores:
    """Scores in the order of the structures: which ones go does not change the time."""
    return Scores(
        mlp=[torch.arange(widths.mlp_channels).float() for widths in layers],
        heads=[torch.arange(widths.query_heads).float() for widths in layers],
        groups=[torch.arange(widths.kv_groups).float() for widths in layers],
    )


if __name__ == "__main__":
    sys.exit(main())
