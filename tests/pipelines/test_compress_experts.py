"""The whole pipeline on a mixture of experts."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.models import small_model
from tests.pipelines import small
from tests.pipelines.workplace import Workplace, make_workplace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    work = make_workplace(tmp_path_factory.mktemp("project"))
    model = small_model("qwen3-moe", vocab_size=256, num_experts=8)
    model.save_pretrained(work.folder / "model")
    return work


@pytest.mark.parametrize(
    ("layout", "experts", "kept"),
    [
        ("uniform", "channels", "Qwen3MoeForCausalLM"),
        ("per_layer", "whole", "PerLayerQwen3MoeForCausalLM"),
    ],
)
def test_a_mixture_of_experts_is_compressed(
    layout: str, experts: str, kept: str, work: Workplace
) -> None:
    settings = {
        "layout": layout, "experts": experts, "round_to": 8, "ratio": 0.3,
        "protect_first": 1, "protect_last": 0,
    }  # fmt: skip
    options = [w for k, v in settings.items() for w in ("--set", f"pruning.{k}={v}")]
    result = work.compress(*options)
    assert result.code == 0, result.err
    assert result.ran | result.cached >= small.AFTER_PRUNING
    report = work.report()
    assert report["ratio"]["achieved"] == pytest.approx(0.3, abs=0.02)
    layers = report["plan"]["layers"]
    assert [layer["dense_experts"] for layer in layers] == [8] * 4
    assert any(layer["experts"] < 8 for layer in layers) == (experts == "whole")
    checkpoint = work.results / "checkpoint"
    is_per_layer = layout == "per_layer"
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=is_per_layer)
    assert type(model).__name__ == kept
    assert model.num_parameters() == report["params"]["pruned"]
    assert torch.isfinite(model(torch.arange(3, 12)[None]).logits).all()
