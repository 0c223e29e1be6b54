"""Peak memory of each process of a fine-tuning by several, on a random Llama of 100 million.

    python -m benchmarks.sharded_tuning [PROCESSES ...]

Two steps of 4 x 64 tokens in float32 on the CPU, from loading the model to writing the checkpoint,
by one process and by each number of PROCESSES (1 2 3). The peaks are beyond the libraries; that of
several processes is the largest.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import accelerate  # noqa: F401 (the base of the measurement has all libraries that it imports)
import peft  # noqa: F401
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adapruner.config import DeviceConfig, FinetuneConfig
from adapruner.data.pool import Pool, write_finetune_rows
from adapruner.efficiency.peak_memory import peak_since
from adapruner.models.distributed.launch import run_processes
from adapruner.models.streamed.memory import process_bytes
from adapruner.recovery.cost import measure_tuning_memory
from adapruner.recovery.distributed import processes
from adapruner.recovery.finetune import RecoveryRequest, to_json

VOCABULARY, LENGTH = 2048, 64
MIB = 2**20


def main(counts: list[int]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        request = make_request(root)
        print("| processes | MiB | s |\n| --- | --- | --- |")
        start = time.perf_counter()
        whole = measure_tuning_memory(request)
        assert whole is not None
        row("one, whole", whole.peak_bytes - whole.libraries_bytes, start)
        for count in counts:
            folder = root / str(count)
            folder.mkdir()
            (folder / processes.REQUEST).write_text(to_json(request))
            start = time.perf_counter()
            run_processes("benchmarks.sharded_tuning", folder, count, "a process failed")
            peaks = [int(file.read_text()) for file in folder.glob("*.peak")]
            assert len(peaks) == count
            row(str(count), max(peaks), start)


def row(name: str, peak: int, start: float) -> None:
    print(f"| {name} | {peak / MIB:.0f} | {time.perf_counter() - start:.1f} |", flush=True)


def make_request(root: Path) -> RecoveryRequest:
    """A random model and random text."""
    dense, pool = root / "dense", root / "pool"
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=768, intermediate_size=2304, num_hidden_layers=13,
        num_attention_heads=12, num_key_value_heads=12,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(dense)
    words = WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0")
    backend = Tokenizer(words)
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0").save_pretrained(dense)
    ids = torch.randint(VOCABULARY, (4, LENGTH), dtype=torch.int32)
    pool.mkdir()
    Pool(ids, ids.clone(), torch.zeros(4, dtype=torch.int32), ids.clone(), ids.clone()).write(pool)
    text = " ".join(f"w{i}" for i in torch.randint(VOCABULARY, (LENGTH * 16,)).tolist())
    write_finetune_rows(pool, [{"text": text}])
    settings = FinetuneConfig(steps=2, batch_size=4, sequence_length=LENGTH)
    device = DeviceConfig(device="cpu")
    return RecoveryRequest(dense, dense, root, pool, device, settings, seed=0)


def measure(folder: Path) -> None:
    """The part of one process."""
    before = process_bytes("VmRSS")
    processes.main(folder)
    peak = peak_since(before, torch.device("cpu"))
    file = folder / f"{os.environ['RANK']}.peak"
    file.write_text(str(peak.peak_bytes - peak.libraries_bytes))


if __name__ == "__main__":
    if "RANK" in os.environ:
        measure(Path(sys.argv[1]))
    else:
        main([int(count) for count in sys.argv[1:]] or [1, 2, 3])
