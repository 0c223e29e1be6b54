"""Peak memory, time and quality of fine-tuning, by method, on one checkpoint and one pool.

    python benchmarks/tuning.py CHECKPOINT POOL --steps 60 --dtype bfloat16
    python benchmarks/tuning.py --random POOL --steps 2 --dtype bfloat16 --memory-only

CHECKPOINT is a pruned (or dense) model, POOL the directory of `filter_calibration_pool`. `--random`
is a Llama of 1.1 billion random weights in bfloat16, with the tokenizer of CHECKPOINT. The memory
is that of two steps in a process of its own, beyond the libraries.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adapruner.config import DeviceConfig, FinetuneConfig
from adapruner.data.pool import Pool
from adapruner.evaluation.perplexity import perplexity
from adapruner.models.storage import checkpoint as ckpt
from adapruner.recovery.cost import measure_tuning_memory
from adapruner.recovery.finetune import CHECKPOINT, RecoveryRequest, finetune

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "lora, recompute": {"method": "lora", "recompute": True},
    "grouped, no recompute": {"method": "grouped", "recompute": False},
    "grouped": {"method": "grouped"},
}


def main() -> None:
    arguments = parse()
    device = DeviceConfig(device="cpu", dtype=arguments.dtype)
    with TemporaryDirectory() as folder:
        checkpoint = arguments.checkpoint
        if arguments.random:
            checkpoint = random_checkpoint(checkpoint, Path(folder) / "random")
        held_out = Pool.read(arguments.pool).held_out
        if not arguments.memory_only:
            print("before:", row(perplexity(ckpt.load_model(checkpoint, device), held_out)))
        print("| method | peak MiB beyond libraries | seconds | held-out perplexity |")
        print("| --- | --- | --- | --- |")
        for name in arguments.methods:
            config = FinetuneConfig(
                **METHODS[name],
                steps=arguments.steps,
                batch_size=arguments.batch_size,
                sequence_length=arguments.length,
                learning_rate=arguments.learning_rate,
            )
            request = RecoveryRequest(
                checkpoint, checkpoint, Path(folder), arguments.pool, device, config, 0
            )
            memory = measure_tuning_memory(request)
            beyond = (memory.peak_bytes - memory.libraries_bytes) / 2**20 if memory else None
            seconds = quality = None
            if not arguments.memory_only:
                out = Path(folder) / name.replace(", ", "-")
                out.mkdir()
                start = time.perf_counter()
                finetune(request, out)
                seconds = time.perf_counter() - start
                quality = perplexity(ckpt.load_model(out / CHECKPOINT, device), held_out)
            print(f"| {name} | {row(beyond)} | {row(seconds)} | {row(quality)} |", flush=True)


def row(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def random_checkpoint(tokenizer_of: Path, out: Path) -> Path:
    """A Llama as wide and deep as TinyLlama, with the vocabulary of another checkpoint."""
    tokenizer = ckpt.load_tokenizer(tokenizer_of)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=2048, intermediate_size=5632,
        num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(out)
    torch.set_default_dtype(torch.float32)
    tokenizer.save_pretrained(out)
    return out


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--memory-only", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
