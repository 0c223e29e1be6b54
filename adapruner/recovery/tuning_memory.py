"""Peak memory of fine-tuning, measured in a process that does nothing else.

    python -m adapruner.recovery.tuning_memory < REQUEST.json

It runs the whole method, from loading the model to writing the checkpoint, with two steps: the
optimizer's state exists from the second on.
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
from pydantic import TypeAdapter

from adapruner.efficiency.peak_memory import PeakMemory, measure_apart, peak_since, resident_bytes
from adapruner.models.checkpoint import device_of
from adapruner.recovery import METHODS
from adapruner.recovery.finetune import CHECKPOINT, RecoveryRequest

STEPS = 2

_REQUEST = TypeAdapter(RecoveryRequest)


def measure_tuning_memory(request: RecoveryRequest) -> PeakMemory | None:
    """The peak of a recovery; None where it trains nothing or the measurement fails.

    With `steps` above 2 it is that of two of them.
    """
    if not request.finetune.is_enabled:
        return None
    steps = min(request.finetune.steps, STEPS)
    request = replace(
        request,
        checkpoint=request.checkpoint.absolute(),
        teacher=request.teacher.absolute(),
        pool=request.pool.absolute(),
        finetune=request.finetune.model_copy(update={"steps": steps}),
    )
    text = _REQUEST.dump_json(request, warnings=False).decode()
    results = measure_apart("adapruner.recovery.tuning_memory", text)
    return results[0] if results else None


def main() -> None:
    """Reads a RecoveryRequest from standard input and prints a JSON list of one PeakMemory."""
    request = _REQUEST.validate_json(sys.stdin.read())
    module = import_module(METHODS[request.finetune.method])
    with TemporaryDirectory() as folder:
        out = Path(folder) / CHECKPOINT
        out.mkdir()
        before = resident_bytes()
        module.recover(request, out)
        peak = peak_since(before, device_of(request.model))
    print(json.dumps([peak.model_dump()]))


if __name__ == "__main__":
    main()
