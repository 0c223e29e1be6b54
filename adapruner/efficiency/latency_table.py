"""The latency table: times of one forward pass against the widths of the layers.

The time of a forward pass is modelled as a sum: a fixed rest (embeddings, norms, head), the MLPs of
all layers and the attention of all layers. Of each part, the table has the time at several shares
of its dense width. Between them it is linear, and it never falls with the width.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from adapruner.config import DeviceConfig
from adapruner.config.pruning import LatencyPhase
from adapruner.errors import UserError
from adapruner.files import Artifact, Record
from adapruner.models.devices import compute_dtype, device_of

Part = Literal["mlp", "experts", "attention"]
"""A part of all layers: the MLPs without experts, those with, or the attention."""

CPUINFO = Path("/proc/cpuinfo")


class Hardware(Artifact):
    """What a measured time is valid for: the device, its threads and the type of computation.

    `processor` is the CPU's model, `machine` its architecture; `gpus` are the names of the GPUs
    that the model is on, none on the CPU.
    """

    FILE: ClassVar[str] = "hardware.json"

    processor: str
    machine: str
    cores: int
    threads: int
    gpus: tuple[str, ...]
    dtype: str
    torch: str

    def __str__(self) -> str:
        device = ", ".join(self.gpus) or f"{self.processor} ({self.threads} threads)"
        return f"{device}, {self.dtype}"


class Curve(Record):
    """The time of a part of all layers, in ns, at ascending shares of its dense width."""

    shares: tuple[float, ...]
    ns: tuple[float, ...]

    def at(self, share: float) -> float:
        """Nanoseconds at a share of the width, linear between the measured ones."""
        return float(np.interp(share, self.shares, self.ns))


class LatencyTable(Artifact):
    """Times of one forward pass at batch size 1.

    `total_ns` is the dense model's; the curves of the parts that can be removed end with their
    dense times. Prefill reads a prompt of `tokens` tokens; decode is one token after it.
    """

    FILE: ClassVar[str] = "latency.json"

    phase: LatencyPhase
    tokens: int
    hardware: Hardware
    repeats: int
    total_ns: float
    curves: dict[Part, Curve]


def describe_hardware(model: DeviceConfig) -> Hardware:
    """The hardware that models are computed with in this process."""
    device = device_of(model)
    gpus: tuple[str, ...] = ()
    if device.type == "cuda":
        used = range(torch.cuda.device_count()) if model.device == "auto" else [device.index or 0]
        gpus = tuple(torch.cuda.get_device_name(i) for i in used)
    elif device.type != "cpu":
        gpus = (device.type,)
    return Hardware(
        processor=_processor(),
        machine=platform.machine(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        gpus=gpus,
        dtype=compute_dtype(model),
        torch=torch.__version__,
    )


def check_same(expected: Hardware, model: DeviceConfig) -> None:
    """Raises UserError unless models are computed with the `expected` hardware in this process."""
    here = describe_hardware(model)
    if here != expected:
        raise UserError(
            f"latency would be measured on {here}, but the run began on {expected}; let all steps "
            "run on machines of one kind"
        )


def _processor() -> str:
    """The CPU's model: on Linux its name, family and stepping, as a virtual one may be unnamed."""
    if not CPUINFO.is_file():
        return platform.processor() or platform.machine()
    fields = {}
    for line in CPUINFO.read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    version = "-".join(fields.get(name, "") for name in ("cpu family", "model", "stepping"))
    return f"{fields.get('model name', platform.machine())} {version}".strip(" -")
