"""torchao loads a checkpoint that was tuned in 4 bit with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from adapruner.efficiency.torchao import load_4bit
from adapruner.models.storage.checkpoint import load_model
from tests.adapruner.export.checkpoints import small, write
from tests.adapruner.recovery.test_grouped import (
    DEVICE,
    WIDE,
    WIDER,
    merged,
    small_per_layer,
    tuned,
)

pytest.importorskip("torchao")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "differ"])
def test_int4_weights_are_those_of_the_checkpoint_in_bfloat16(kind: str, tmp_path: Path) -> None:
    stock = small_per_layer({1: WIDER}) if kind == "differ" else small(kind, **WIDE)
    checkpoint = write(stock, tmp_path / "in")
    out = merged(tuned(checkpoint), checkpoint, tmp_path)
    model, expected = load_4bit(out, DEVICE, 32), load_model(out, DEVICE).state_dict()
    assert model is not None
    compared = 0
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            unit = torch.eye(module.in_features, dtype=torch.bfloat16)
            weight = F.linear(unit, module.weight).T.float()
            dense = expected[f"{name}.weight"]
            # Weights, step, zero point and product are each rounded to 8 bits of precision.
            assert (weight - dense).abs().max() <= 2**-6 * dense.abs().max(), name
            compared += 1
    assert compared == 7 * 4
