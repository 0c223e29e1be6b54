"""The tensors of a GGUF file: names, order of rows, and data types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quantization
from numpy.typing import NDArray
from safetensors import safe_open
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from adapruner.errors import UserError
from adapruner.export.architectures import (
    ALL_BIASES,
    ARCHITECTURES,
    FREQUENCY_FACTORS,
    FUSED_PROJECTIONS,
    NEIGHBOURING_PAIRS,
)
from adapruner.export.contents import Contents
from adapruner.export.gguf_fields import folded_multipliers
from adapruner.export.gguf_groups import stored_blocks
from adapruner.models.storage.weights import tensor_shapes, weight_files

Floats = NDArray[np.float32]

TYPES = {
    "f32": (Quantization.F32, Quantization.F32),
    "f16": (Quantization.F16, Quantization.F16),
    "bf16": (Quantization.BF16, Quantization.BF16),
    "q8_0": (Quantization.Q8_0, Quantization.Q8_0),
    "q4_1": (Quantization.Q4_1, Quantization.Q8_0),
    "q4_0": (Quantization.Q4_0, Quantization.Q8_0),
}
"""Tensor type -> the type of the projections, and that of the embeddings.

Embeddings lose more by 4 bits than they save.
"""

_INPUTS = ("attn_q", "attn_k", "attn_v")

_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Fused projection -> its parts, in the order of their rows."""


@dataclass(frozen=True)
class Stored:
    """A tensor in GGUF, and the rows of the checkpoint's tensor `source` that it holds."""

    name: str
    shape: tuple[int, ...]
    data_type: Quantization
    source: str
    rows: slice

    @property
    def part(self) -> str:
        """The name without its block and `weight` or `bias`."""
        return self.name.split(".")[-2]


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint as a GGUF architecture stores them."""

    checkpoint: Path
    contents: Contents
    architecture: str
    tensor_type: str

    def plan(self) -> list[Stored]:
        """All tensors. Raises UserError for one that the architecture does not have."""
        arch = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == self.architecture)
        names = gguf.get_tensor_name_map(arch, len(self.contents.layers))
        tied = self.contents.config.tie_word_embeddings
        planned = []
        for source, (height, *width) in tensor_shapes(self.checkpoint).items():
            if source.endswith("inv_freq") or (tied and source == "lm_head.weight"):
                continue
            for part, rows in self._parts(source, height):
                name = names.get_name(part, try_suffixes=(".weight", ".bias"))
                if name is None or not self._reads(name):
                    raise UserError(
                        f"GGUF architecture '{self.architecture}' has no place for '{source}' of "
                        f"'{self.checkpoint}'"
                    )
                shape = (rows.stop - rows.start, *width)
                planned.append(Stored(name, shape, self._data_type(name, shape), source, rows))
        return planned

    def read(self) -> Iterator[tuple[Stored, NDArray[Any]]]:
        """Each tensor of the plan and its data, in the plan's order, one at a time."""
        planned: dict[str, list[Stored]] = {}
        for stored in self.plan():
            planned.setdefault(stored.source, []).append(stored)
        for file in weight_files(self.checkpoint):
            with safe_open(file, framework="pt") as tensors:
                for source in tensors.keys():  # noqa: SIM118 (not a mapping)
                    for stored in planned.get(source, ()):
                        data = self._blocks(stored)
                        if data is None:
                            rows = tensors.get_slice(source)[stored.rows].float().numpy()
                            values = self._converted(stored, rows)
                            data = gguf.quants.quantize(values, stored.data_type)
                        yield stored, data

    def frequency_factors(self) -> dict[str, Floats]:
        """Name in GGUF -> what each rotary frequency is divided by, float32 [head_dim / 2].

        It is the quotient of the frequencies that Transformers computes without and with scaling;
        `longrope` has two sets in its config; llama.cpp takes the long one for a context that is
        longer than the original one.
        """
        contents = self.contents
        if contents.rope_type() == "longrope":
            sets = {kind: contents.rope()[f"{kind}_factor"] for kind in ("long", "short")}
            return {f"rope_factors_{k}.weight": np.asarray(v, np.float32) for k, v in sets.items()}
        if contents.rope_type() == "default" or self.architecture not in FREQUENCY_FACTORS:
            return {}
        scaled, _ = ROPE_INIT_FUNCTIONS[contents.rope_type()](contents.config, torch.device("cpu"))
        size = 2 * len(scaled)
        plain = contents.rope_theta() ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        factors: Floats = (plain / scaled).numpy()
        return {"rope_freqs.weight": factors}

    def _parts(self, source: str, height: int) -> list[tuple[str, slice]]:
        """The projections fused in a tensor and their rows, where the architecture has them apart;
        else the tensor itself.
        """
        fused = next((name for name in _FUSED if f".{name}." in source), None)
        if fused is None or self.architecture in FUSED_PROJECTIONS:
            return [(source, slice(0, height))]
        layer = self.contents.layers[int(source.split("layers.")[1].split(".")[0])]
        head_dim = self.contents.structures.head_dim
        heights = {
            "q_proj": layer.query_heads * head_dim,
            **dict.fromkeys(("k_proj", "v_proj"), layer.kv_groups * head_dim),
            **dict.fromkeys(("gate_proj", "up_proj"), layer.mlp_channels),
        }
        ends = accumulate(heights[name] for name in _FUSED[fused])
        return [
            (source.replace(fused, name), slice(end - heights[name], end))
            for name, end in zip(_FUSED[fused], ends, strict=True)
        ]

    def _reads(self, name: str) -> bool:
        """Whether the architecture reads a tensor that GGUF has a name for."""
        is_bias, is_input = name.endswith(".bias"), name.split(".")[-2] in _INPUTS
        return not is_bias or is_input or self.architecture in ALL_BIASES

    def _data_type(self, name: str, shape: tuple[int, ...]) -> Quantization:
        if len(shape) == 1:
            return Quantization.F32
        is_embedding = name.startswith(("token_embd", "output."))
        data_type = TYPES[self.tensor_type][is_embedding]
        block, _ = gguf.GGML_QUANT_SIZES[data_type]
        return Quantization.F16 if shape[-1] % block else data_type

    def _converted(self, stored: Stored, values: Floats) -> Floats:
        row = ARCHITECTURES[self.contents.structures.family.model_type]
        if "norm" in stored.part:
            values = values + np.float32(row.norm_offset)
        factor = self._factor(stored)
        values = values[self._order(stored)]
        return values if factor is None else values * np.float32(factor)

    def _blocks(self, stored: Stored) -> NDArray[np.uint8] | None:
        """The data of a tensor that was trained in 4 bit; None where it is to be quantized."""
        is_same = stored.data_type == Quantization.Q4_1 and self._factor(stored) is None
        if self.contents.groups is None or not is_same:
            return None
        order = self._order(stored)
        return stored_blocks(self.contents.groups, stored.source, stored.rows, order)

    def _factor(self, stored: Stored) -> float | None:
        return folded_multipliers(self.architecture, self.contents).get(stored.part)

    def _order(self, stored: Stored) -> NDArray[np.int64]:
        """The order of the rows in GGUF, int [rows]."""
        if self.architecture in NEIGHBOURING_PAIRS and stored.part in ("attn_q", "attn_k"):
            return _neighbouring_rows(stored.shape[0], self.contents.structures.head_dim)
        return np.arange(stored.shape[0])


def _neighbouring_rows(rows: int, head_dim: int) -> NDArray[np.int64]:
    """The order of rows that puts the halves of each rotary pair beside each other, int [rows]."""
    by_head = np.arange(rows).reshape(-1, 2, head_dim // 2)
    return by_head.transpose(0, 2, 1).reshape(rows)
