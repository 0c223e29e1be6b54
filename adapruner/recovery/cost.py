"""What fine-tuning costs in memory, and what a model that was tuned in 4 bit gains.

    python -m adapruner.recovery.cost < REQUEST.json

measures the peak memory in a process that does nothing else. It runs the whole method, from loading
the model to writing the checkpoint, with two steps: the optimizer's state exists from the second.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import accelerate  # noqa: F401 (the base of the measurement has all libraries that methods import)
import peft  # noqa: F401

from adapruner.config import EvaluationConfig
from adapruner.efficiency.peak_memory import measure_apart, peak_since
from adapruner.efficiency.results import PeakMemory, Throughput
from adapruner.efficiency.speed import measure_throughput
from adapruner.efficiency.torchao import load_4bit
from adapruner.models.groups import GROUPS_FILE
from adapruner.models.storage.checkpoint import device_of, load_model
from adapruner.models.streamed.memory import process_bytes
from adapruner.progress import announce
from adapruner.recovery import METHODS
from adapruner.recovery.cost_result import RecoveryCost
from adapruner.recovery.finetune import CHECKPOINT, RecoveryRequest, from_json, to_json

STEPS = 2


def measure_recovery(
    request: RecoveryRequest, tuned: Path, exports: Path, evaluation: EvaluationConfig
) -> RecoveryCost:
    """The cost of the recovery whose result is in `tuned`, and its exports in `exports`.

    Memory and speed are measured as `evaluation` says.
    """
    is_measured = evaluation.speed and evaluation.peak_memory
    memory = measure_tuning_memory(request) if is_measured else None
    if not (tuned / GROUPS_FILE).is_file():
        return RecoveryCost(memory=memory)
    files = [file.stat().st_size for file in exports.glob("*-q4_1.gguf")]
    speeds = _speeds(request, tuned / CHECKPOINT, evaluation) if evaluation.speed else {}
    return RecoveryCost(memory=memory, bytes_4bit=sum(files) or None, **speeds)


def _speeds(
    request: RecoveryRequest, checkpoint: Path, evaluation: EvaluationConfig
) -> dict[str, Throughput]:
    in_4bit = load_4bit(checkpoint, request.model, request.finetune.group_size)
    if in_4bit is None:
        announce("no speed in 4 bit, because torchao is missing: pip install 'adapruner[torchao]'")
        return {}
    model = load_model(checkpoint, request.model, dtype=in_4bit.dtype)
    return measure_throughput({"speed": model, "speed_4bit": in_4bit}, evaluation)


def measure_tuning_memory(request: RecoveryRequest) -> PeakMemory | None:
    """The peak of a recovery; None where it trains nothing, several processes train, or the
    measurement fails.

    With `steps` above 2 it is that of two of them.
    """
    if not request.finetune.is_enabled or request.is_dealt_out:
        return None
    steps = min(request.finetune.steps, STEPS)
    request = replace(request, finetune=request.finetune.model_copy(update={"steps": steps}))
    results = measure_apart("adapruner.recovery.cost", to_json(request))
    return results[0] if results else None


def main() -> None:
    """Reads a RecoveryRequest from standard input and prints a JSON list of one PeakMemory."""
    request = from_json(sys.stdin.read())
    module = import_module(METHODS[request.finetune.method])
    with TemporaryDirectory() as folder:
        out = Path(folder) / CHECKPOINT
        out.mkdir()
        before = process_bytes("VmRSS")
        module.recover(request, out)
        peak = peak_since(before, device_of(request.model))
    print(json.dumps([peak.model_dump()]))


if __name__ == "__main__":
    main()
