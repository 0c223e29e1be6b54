"""The results of measurements. Who reads them needs no module of Transformers."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapruner.files import Artifact, Record


class PeakMemory(Record):
    """Peak memory in bytes, of the whole process or of torch's allocations on CUDA.

    `libraries_bytes` is the part of the process before the model was loaded; 0 on CUDA.
    """

    peak_bytes: int
    libraries_bytes: int
    of: Literal["process", "cuda"]


class Spread(Record):
    """Median, quartiles and range of the repeats."""

    median: float
    q1: float
    q3: float
    min: float
    max: float


class Throughput(Record):
    """Tokens per second in one setting."""

    prefill_tokens_per_s: Spread
    decode_tokens_per_s: Spread


class Speedup(Record):
    """The pruned model's median speed / the dense model's, in one setting."""

    prefill: float
    decode: float


class SpeedProtocol(Record):
    """The settings of the measurement."""

    batch_sizes: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    new_tokens: int
    repeats: int
    threads: int
    device: str
    dtype: str


class Speed(Artifact):
    """Throughput of both models and their ratio, by setting: `batch_<B>_prompt_<T>`."""

    FILE: ClassVar[str] = "speed.json"

    dense: dict[str, Throughput]
    pruned: dict[str, Throughput]
    speedup: dict[str, Speedup]
    protocol: SpeedProtocol


class Flops(Record):
    """FLOPs per token, by length of the prompt (prefill) or of the context (decode)."""

    prefill: dict[str, float]
    decode: dict[str, int]


class ModelCost(Record):
    """The cost of one checkpoint.

    The cache (`kv_bytes`, by length) is that of one sequence in the configured data type. `memory`
    is None where it was not measured.
    """

    params: int
    weight_bytes: int
    flops_per_token: Flops
    kv_bytes_per_token: int
    kv_bytes: dict[str, int]
    memory: PeakMemory | None


class CostProtocol(Record):
    """The settings of the measurement; memory is that of one prompt of `memory_tokens`."""

    lengths: tuple[int, ...]
    dtype: str
    memory_tokens: int
    memory_new_tokens: int


class Cost(Artifact):
    """The cost of the dense and of the pruned checkpoint."""

    FILE: ClassVar[str] = "cost.json"

    dense: ModelCost
    pruned: ModelCost
    protocol: CostProtocol
