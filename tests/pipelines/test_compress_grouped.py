"""The whole pipeline with fine-tuning in 4 bit: what is published and registered."""

from __future__ import annotations

import shutil

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from tests.adapruner.export.checkpoints import small, write
from tests.pipelines.small import AFTER_PRUNING
from tests.pipelines.workplace import make_workplace

pytestmark = pytest.mark.slow


def test_a_run_publishes_the_checkpoint_and_its_4_bit_file(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from mlflow import MlflowClient

    work = make_workplace(tmp_path_factory.mktemp("project"))
    shutil.rmtree(work.folder / "model")
    write(small("llama", intermediate_size=256), work.folder / "model")
    settings = {
        "finetune.method": "grouped", "pruning.target": "llama.cpp", "pruning.round_to": 32,
        "pruning.layout": "per_layer", "pruning.protect_first": 1, "pruning.protect_last": 0,
        "evaluation.peak_memory": "true",
    }  # fmt: skip
    result = work.compress(*(w for k, v in settings.items() for w in ("--set", f"{k}={v}")))
    assert result.code == 0, result.err
    assert result.ran | result.cached >= AFTER_PRUNING
    report = work.report()
    widths = {layer["mlp_channels"] for layer in report["plan"]["layers"]}
    assert len(widths) > 1 and not any(width % 32 for width in widths)
    checkpoint = work.results / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True)
    assert torch.isfinite(model(torch.arange(3, 12)[None]).logits).all()
    file = work.results / "exports" / "model-q4_1.gguf"
    tensors = GGUFReader(file).tensors
    assert sum(tensor.tensor_type.name == "Q4_1" for tensor in tensors) == 4 * 7
    cost = report["recovery_cost"]
    assert cost["bytes_4bit"] == file.stat().st_size < report["weight_bytes"]["finetuned"]
    assert cost["memory"]["peak_bytes"] > cost["memory"]["libraries_bytes"]
    client = MlflowClient(f"sqlite:///{work.home / 'mlflow.db'}")
    version = client.get_model_version_by_alias("small-pruned", "candidate")
    exports = {item.path for item in client.list_artifacts(version.run_id, "exports")}
    assert exports == {"exports/model-q4_1.gguf"}
