"""A checkpoint that was trained in 4 bit, loaded in 4 bit by torchao (`adapruner[torchao]`).

Its weights lie on the grids of their groups, so torchao's int4 weight-only quantization by the
range of each group finds the same codes; step and zero point are rounded to bfloat16.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TorchAoConfig
from transformers.utils.import_utils import is_torchao_available

from adapruner.config import DeviceConfig
from adapruner.models import auto_classes  # noqa: F401 (registers the per-layer classes)
from adapruner.models.storage.checkpoint import device_of
from adapruner.progress import hide_library_bars


def load_4bit(checkpoint: Path, model: DeviceConfig, group_size: int) -> Any | None:
    """The model in bfloat16 with int4 projections, in eval mode; None without torchao."""
    if not is_torchao_available():
        return None
    hide_library_bars()
    device = device_of(model)
    quantization = TorchAoConfig(_config(device, group_size))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.bfloat16,
        device_map={"": device},
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        quantization_config=quantization,
    )
    return loaded.eval().requires_grad_(False)


def _config(device: torch.device, group_size: int) -> Any:
    """The configuration whose kernels torch itself has on the device."""
    if device.type == "cpu":
        prototype = import_module("torchao.prototype.quantization.int4")
        return prototype.PrototypeInt4WeightOnlyConfig(group_size=group_size)
    quantization = import_module("torchao.quantization")
    return quantization.Int4WeightOnlyConfig(
        group_size=group_size, int4_packing_format="tile_packed_to_4d"
    )
