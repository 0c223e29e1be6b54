"""Peak memory of generating with a checkpoint, measured in a process that does nothing else.

    python -m adapruner.efficiency.peak_memory < REQUEST.json

The libraries are imported once; each checkpoint is measured in a fork of its own, so that none is
affected by another. On the CPU the figure is the largest resident size of the process, which
includes the libraries (also reported separately); on CUDA it is the maximum that torch allocated,
summed over the devices.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from adapruner.config import DeviceConfig, EvaluationConfig
from adapruner.efficiency.decode import decode, synthetic_prompt
from adapruner.efficiency.results import PeakMemory
from adapruner.files import Record
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.memory import process_bytes
from adapruner.progress import announce


class MemoryRequest(Record):
    """The standard input of the measuring process: checkpoints, device, tokens of the prompt."""

    checkpoints: tuple[Path, ...]
    model: DeviceConfig
    tokens: int
    new_tokens: int


def measure_peak_memory(
    checkpoints: Sequence[Path], model: DeviceConfig, evaluation: EvaluationConfig
) -> list[PeakMemory | None]:
    """Peak memory of each checkpoint at the longest prompt.

    All are None where `peak_memory` or `speed` is off, or where the measurement fails.
    """
    nothing: list[PeakMemory | None] = [None] * len(checkpoints)
    if not (evaluation.speed and evaluation.peak_memory):
        return nothing
    request = MemoryRequest(
        checkpoints=tuple(path.absolute() for path in checkpoints),
        model=DeviceConfig(device=model.device, dtype=model.dtype),
        tokens=max(evaluation.prompt_tokens),
        new_tokens=evaluation.new_tokens,
    )
    results = measure_apart("adapruner.efficiency.peak_memory", request.model_dump_json())
    return results or nothing


def measure_apart(module: str, request: str) -> list[PeakMemory | None]:
    """What `module` prints as its last line, run in a process of its own: a list of PeakMemory.

    `request` is its standard input. Empty where it fails, which is announced.
    """
    process = subprocess.run(
        [sys.executable, "-m", module], input=request, capture_output=True, text=True, check=False
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["the process was killed"])[-1]
        announce(f"peak memory could not be measured: {reason[:200]}")
        return []
    return [PeakMemory.model_validate(item) for item in json.loads(process.stdout.splitlines()[-1])]


def main() -> None:
    """Reads a MemoryRequest from standard input and prints a JSON list of PeakMemory."""
    request = MemoryRequest.model_validate_json(sys.stdin.read())
    results = []
    for checkpoint in request.checkpoints:
        with ProcessPoolExecutor(1, get_context("fork")) as fork:
            results.append(fork.submit(_measure, checkpoint, request).result())
    print(json.dumps([result.model_dump() for result in results]))


def _measure(checkpoint: Path, request: MemoryRequest) -> PeakMemory:
    before = process_bytes("VmRSS")
    model: Any = ckpt.load_model(checkpoint, request.model)
    prompt = synthetic_prompt(1, request.tokens, model.config.vocab_size)
    decode(model, prompt, request.new_tokens)
    return peak_since(before, model.get_input_embeddings().weight.device)


def peak_since(before: int, device: torch.device) -> PeakMemory:
    """The peak of this process, which had `before` resident bytes when its work began."""
    if device.type == "cuda":
        peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
        return PeakMemory(peak_bytes=sum(peaks), libraries_bytes=0, of="cuda")
    return PeakMemory(peak_bytes=process_bytes("VmHWM"), libraries_bytes=before, of="process")


if __name__ == "__main__":
    main()
