"""The device that models are computed on and the data type of computation.

No module of Transformers is imported, so that describing the hardware takes no time.
"""

from __future__ import annotations

import torch

from adapruner.config import DeviceConfig
from adapruner.errors import UserError


def compute_dtype(model: DeviceConfig) -> str:
    """The data type of computation: float32 or bfloat16, also where `model.dtype` is auto."""
    if model.dtype != "auto":
        return model.dtype
    device = device_of(model).type
    if device == "cuda":
        is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        is_fast = device == "cpu" and any(getattr(torch.cpu, c, bool)() for c in checks)
    return "bfloat16" if is_fast else "float32"


def device_of(model: DeviceConfig) -> torch.device:
    """The device that `model.device` names. Raises UserError when it is not available."""
    if model.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(model.device)
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= count:
        raise UserError(
            f"model.device '{model.device}' is not available: torch sees {count} devices of type "
            f"{device.type}; use device: auto"
        )
    return device
