"""A whole run, from a checkpoint to a registered version, with a model that does not fit in memory.

    python -m benchmarks.streamed_run [MILLIONS]

A random Llama of about MILLIONS million weights (default: 300) in float32, with a small tokenizer,
goes through `adapruner compress` without fine-tuning and speed, which are not streamed. The process
may take 60 % of the weights' bytes more than a run of a tiny model takes (RLIMIT_DATA), and fails
if it needs more. Printed: both peaks of what counts towards the limit, seconds, and the exit code.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from adapruner.models.storage.checkpoint import size_on_disk
from tests.pipelines import small

SHARE, DEPTH, LENGTH = 0.6, 24, 64
MIB = 2**20


def main(millions: int) -> int:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        libraries, _, code = run(inputs(root / "tiny", 1), None)
        print(f"a tiny model: exit {code}, {libraries / MIB:.0f} MiB", flush=True)
        if code:
            return code
        settings = inputs(root / "large", millions)
        size = size_on_disk(root / "large" / "model")
        limit = libraries + int(SHARE * size)
        print(f"{size / MIB:.0f} MiB of weights; at most {(limit - libraries) / MIB:.0f} more")
        peak, seconds, code = run(settings, limit)
        print(f"exit {code}, {(peak - libraries) / MIB:.0f} MiB more, {seconds:.0f} s")
    return code


def inputs(folder: Path, millions: int) -> Path:
    """The file of a run, beside its model and text."""
    folder.mkdir()
    small.write_checkpoint(folder / "model", 0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    hidden = max(round((millions * 1e6 / DEPTH / 12.25) ** 0.5 / 64), 1) * 64
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=round(hidden * 2.75 / 64) * 64,
        num_hidden_layers=DEPTH,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model", max_shard_size="200MB")
    small.write_text(folder / "text.txt", 0)
    values = small.config(folder)
    sections: dict[str, Any] = values["parameters"]["config"]
    sections["output_dir"] = str(folder / "runs")
    sections["model"] |= {"device": "cpu", "dtype": "float32"}
    sections["calibration"] |= {
        "min_tokens": LENGTH, "sequence_length": LENGTH, "pool_size": 6, "update_size": 12,
        "objective_tokens": 4 * LENGTH, "clusters": 1,
    }  # fmt: skip
    sections["search"] = {"trials": 4, "set_size": 3, "finalists": 1}
    sections["pruning"] |= {"layout": "per_layer", "round_to": 64}
    sections["reconstruction"] = {"method": "least_squares", "epochs": 0, "ridge": 0.1}
    sections["finetune"] = {"method": "none"}
    sections["evaluation"] |= {"speed": False, "sequence_length": LENGTH, "max_windows": 4}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


def run(settings: Path, limit: int | None) -> tuple[int, float, int]:
    """The peak of what counts towards the limit in bytes, seconds, and the exit code."""

    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command = [sys.executable, "-m", "pipelines.cli", "compress", "-c", str(settings)]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(
        [*command, "--home", str(settings.parent / "home")], preexec_fn=restrict
    ) as process:
        while process.poll() is None:
            peak = max(peak, _data(process.pid))
            time.sleep(0.1)
    return peak, time.perf_counter() - start, process.returncode


def _data(pid: int) -> int:
    """The bytes of a process that count towards RLIMIT_DATA; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData")), 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
