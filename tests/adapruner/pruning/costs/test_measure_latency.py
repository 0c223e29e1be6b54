"""A table measured on this machine, and whether a model that is cut by it takes as long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapruner.config import DeviceConfig, PruningConfig
from adapruner.efficiency.decode import synthetic_prompt
from adapruner.efficiency.latency_table import LatencyTable, check_same, describe_hardware
from adapruner.errors import UserError
from adapruner.pruning.costs.measure_latency import measure_latency
from tests.models import small_model

CPU = DeviceConfig(device="cpu")


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("kind", ["llama", "phi3", "qwen3-moe-mixed", "gemma2"])
def test_a_table_has_a_rising_curve_of_each_part(
    kind: str, phase: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapruner.pruning.costs.measure_latency.TURNS", (1, 1))
    model = small_model(kind)
    model.save_pretrained(tmp_path)
    round_to = 8 if "moe" in kind else 4
    pruning = PruningConfig(
        ratio_of="latency", latency_of=phase, context=16, attention="kv_groups", round_to=round_to
    )
    table = measure_latency(tmp_path, CPU, pruning)
    mlps = {"mlp", "experts"} if "moe" in kind else {"mlp"}
    assert set(table.curves) == mlps | {"attention"}
    for curve in table.curves.values():
        assert list(curve.shares) == sorted(set(curve.shares)) and curve.shares[-1] == 1
        assert list(curve.ns) == sorted(curve.ns) and curve.ns[0] >= 0
    assert (table.phase, table.tokens) == (phase, 16)
    assert table.total_ns > 0
    table.write(tmp_path)
    assert LatencyTable.read(tmp_path) == table


def test_the_model_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("llama")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("adapruner.pruning.costs.measure_latency.TURNS", (1, 1))
    prompt = synthetic_prompt(1, 8, 96)
    expected = model(prompt).logits
    kept: list[Any] = []
    monkeypatch.setattr(
        "adapruner.models.storage.checkpoint.load_model",
        lambda *arguments: kept.append(model) or model,
    )
    measure_latency(tmp_path, CPU, PruningConfig(ratio_of="latency", context=8))
    assert kept and torch.equal(model(prompt).logits, expected)


def test_another_machine_is_refused() -> None:
    here = describe_hardware(CPU)
    check_same(here, CPU)
    with pytest.raises(UserError, match="the run began on other"):
        check_same(here.model_copy(update={"processor": "other"}), CPU)
