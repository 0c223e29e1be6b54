"""The tensors of a GGUF file: names, order of rows, and data types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quantization
from numpy.typing import NDArray
from safetensors import safe_open

from adapruner.errors import UserError
from adapruner.export.architectures import ARCHITECTURES, FREQUENCY_FACTORS, NEIGHBOURING_PAIRS
from adapruner.export.contents import Contents
from adapruner.models.weights import tensor_shapes, weight_files

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


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint as a GGUF architecture stores them."""

    checkpoint: Path
    contents: Contents
    architecture: str
    tensor_type: str

    def plan(self) -> dict[str, tuple[str, tuple[int, ...], Quantization]]:
        """Name in the checkpoint -> name in GGUF, shape and data type.

        Raises UserError for a tensor that the architecture does not have.
        """
        arch = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == self.architecture)
        names = gguf.get_tensor_name_map(arch, len(self.contents.layers))
        tied = self.contents.config.tie_word_embeddings
        planned = {}
        for name, shape in tensor_shapes(self.checkpoint).items():
            if name.endswith("inv_freq") or (tied and name == "lm_head.weight"):
                continue
            stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if stored is None:
                raise UserError(
                    f"GGUF architecture '{self.architecture}' has no place for '{name}' of "
                    f"'{self.checkpoint}'"
                )
            planned[name] = (stored, shape, self._data_type(stored, shape))
        return planned

    def read(self) -> Iterator[tuple[str, Floats]]:
        """Name in the checkpoint and values, one tensor at a time, in the order of `plan`."""
        for file in weight_files(self.checkpoint):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    yield name, self._converted(name, tensors.get_tensor(name).float())

    def frequency_factors(self) -> Floats | None:
        """What each rotary frequency is divided by, float32 [head_dim / 2]; None without scaling.

        It is the quotient of the frequencies that Transformers computes without and with scaling.
        """
        contents = self.contents
        if contents.rope_type() == "default" or self.architecture not in FREQUENCY_FACTORS:
            return None
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled, _ = ROPE_INIT_FUNCTIONS[contents.rope_type()](contents.config, torch.device("cpu"))
        size = 2 * len(scaled)
        plain = contents.rope_theta() ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        factors: Floats = (plain / scaled).numpy()
        return factors

    def _data_type(self, stored: str, shape: tuple[int, ...]) -> Quantization:
        if len(shape) == 1:
            return Quantization.F32
        is_embedding = stored.startswith(("token_embd", "output."))
        data_type = TYPES[self.tensor_type][is_embedding]
        block, _ = gguf.GGML_QUANT_SIZES[data_type]
        return Quantization.F16 if shape[-1] % block else data_type

    def _converted(self, name: str, tensor: Any) -> Floats:
        values: Floats = tensor.numpy()
        row = ARCHITECTURES[self.contents.structures.family.model_type]
        if "norm" in name:
            return values + np.float32(row.norm_offset)
        if self.architecture in NEIGHBOURING_PAIRS and (".q_proj." in name or ".k_proj." in name):
            return values[_neighbouring_rows(len(values), self.contents.structures.head_dim)]
        return values


def _neighbouring_rows(rows: int, head_dim: int) -> NDArray[np.int64]:
    """The order of rows that puts the halves of each rotary pair beside each other, int [rows]."""
    by_head = np.arange(rows).reshape(-1, 2, head_dim // 2)
    return by_head.transpose(0, 2, 1).reshape(rows)
