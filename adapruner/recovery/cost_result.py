"""What fine-tuning costs, as it was measured. Who reads it needs no module of Transformers."""

from __future__ import annotations

from typing import ClassVar

from adapruner.efficiency.results import PeakMemory, Throughput
from adapruner.files import Artifact


class RecoveryCost(Artifact):
    """`memory` of fine-tuning; for a model in 4 bit `bytes_4bit`, the size of its GGUF file, and
    the speed of generation in bfloat16, `speed`, and with int4 weights in torchao, `speed_4bit`.

    None where it was not measured.
    """

    FILE: ClassVar[str] = "recovery_cost.json"

    memory: PeakMemory | None = None
    bytes_4bit: int | None = None
    speed: Throughput | None = None
    speed_4bit: Throughput | None = None
