"""The memory of the importance pass, measured in processes of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
import sys
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from adapruner.models.streamed.memory import process_bytes
from adapruner.importance.statistics import importance_table
from adapruner.models import activations

torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=8192, num_hidden_layers={layers},
    num_attention_heads=2, num_key_value_heads=2,
)).eval().requires_grad_(False)

def growth(samples, length):
    before = process_bytes("VmHWM")
    ids = torch.randint(96, (samples, length))
    importance_table(model, ids, [], groups=("fisher",), out=Path(sys.argv[1]))
    return process_bytes("VmHWM") - before

growth(4, 4)
"""
POOL = """
print(growth(1024, 4))
print(Path(sys.argv[1], "importance.safetensors").stat().st_size)
"""
BY_LAYER = """
activations.MOST = activations.SMALL = {bound}
print(growth(4, 128))
"""


def output(script: str, folder: Path, **values: int) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", script.replace("{layers}", str(values["layers"]))
         .replace("{bound}", str(values.get("bound", 0))), str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [int(line) for line in done.stdout.split()]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pool(tmp_path: Path) -> None:
    growth, table = output(MODEL + POOL, tmp_path, layers=2)
    assert table > 350 * 2**20
    assert growth < table / 4


@pytest.mark.slow
def test_a_layer_at_a_time_holds_its_own_activations(tmp_path: Path) -> None:
    (at_once,) = output(MODEL + BY_LAYER, tmp_path, layers=12, bound=2**40)
    (by_layer,) = output(MODEL + BY_LAYER, tmp_path, layers=12, bound=0)
    assert 0 < by_layer < at_once / 2
