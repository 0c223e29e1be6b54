"""From a checkpoint and a plan to a pruned checkpoint that Transformers loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.models.storage import checkpoint as ckpt
from adapruner.pruning.apply import prune
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import apply
from tests.adapruner.models.checkpoints import edit_tensors, weights_of
from tests.adapruner.pruning.plans import plan_for
from tests.adapruner.pruning.pools import write_pool
from tests.models import small_model, tokens

RELOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM
if sys.argv[2] == "import":
    import adapruner.auto_classes
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=sys.argv[2] == "trust")
ids = torch.tensor(json.loads(sys.argv[3]))
with torch.no_grad():
    cached = model.generate(ids, max_new_tokens=6, do_sample=False)
    plain = model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)
    logits = model(ids).logits
torch.testing.assert_close(cached, plain)
loaded = [type(model).__name__, model.num_parameters(), logits.double().flatten().tolist()]
print(json.dumps(loaded))
"""


def pruned(
    root: Path,
    plan: PruningPlan,
    method: ReconstructionConfig,
    dtype: Any = "float32",
    streaming: Any = "auto",
) -> Path:
    """The checkpoint in `root`/dense, pruned."""
    stage, out = root / "stage", root / "out"
    stage.mkdir()
    out.mkdir()
    plan.write(stage)
    write_pool(stage)
    model = ModelConfig(source=str(root / "dense"), dtype=dtype, device="cpu", streaming=streaming)
    prune(root / "dense", stage, stage, model, method, out)
    return out


@pytest.mark.parametrize(
    ("what", "how", "name"),
    [
        ("channels", "plain", "LlamaForCausalLM"),
        ("ragged", "trust", "PerLayerLlamaForCausalLM"),
        ("ragged", "import", "PerLayerLlamaForCausalLM"),
    ],
)
def test_transformers_loads_the_pruned_checkpoint_in_a_fresh_process(
    what: str, how: str, name: str, tmp_path: Path
) -> None:
    model, ids = small_model("llama"), tokens(2, 12).long()
    plan = plan_for(model, what)
    model.save_pretrained(tmp_path / "dense")
    out = pruned(tmp_path, plan, ReconstructionConfig(method="none"))
    apply(model, plan)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(out), how, json.dumps(ids.tolist())],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PATH": "", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        | ({} if how != "import" else {"PYTHONPATH": str(Path(__file__).parents[3])}),
    )  # fmt: skip
    loaded, params, logits = json.loads(done.stdout.splitlines()[-1])
    assert (loaded, params) == (name, plan.params.pruned)
    torch.testing.assert_close(
        torch.tensor(logits).view(2, 12, -1), model(ids).logits, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("method", "epochs", "updated"),
    [
        ("none", 0, ()),
        ("least_squares", 0, ("down_proj",)),
        ("least_squares", 20, ("down_proj", "gate_proj", "up_proj")),
    ],
)
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("computed", ["float32", "bfloat16"])
def test_weights_that_are_not_updated_keep_their_stored_bits(
    stored: torch.dtype,
    computed: Any,
    method: Any,
    epochs: int,
    updated: tuple[str, ...],
    tmp_path: Path,
) -> None:
    model = small_model("llama").to(stored)
    model.save_pretrained(tmp_path / "dense")
    plan = plan_for(model, "channels")
    out = pruned(tmp_path, plan, ReconstructionConfig(method=method, epochs=epochs), computed)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert reloaded.dtype == ckpt.stored_dtype(out) == stored
    apply(model, plan)
    weights = reloaded.state_dict()
    changed = {n for n, weight in model.state_dict().items() if not torch.equal(weights[n], weight)}
    for name in weights:
        assert name not in changed or any(part in name for part in updated), name
    for part in updated:
        assert any(part in name for name in changed), part


@pytest.mark.parametrize(
    ("what", "name"),
    [("channels", "Qwen3MoeForCausalLM"), ("ragged", "PerLayerQwen3MoeForCausalLM")],
)
def test_experts_are_pruned_and_updated(what: str, name: str, tmp_path: Path) -> None:
    model = small_model("qwen3-moe-mixed")
    model.save_pretrained(tmp_path / "dense")
    plan = plan_for(model, what)
    out = pruned(tmp_path, plan, ReconstructionConfig(method="least_squares"))
    cut, loaded = model, AutoModelForCausalLM.from_pretrained(out)
    apply(cut, plan)
    assert type(loaded).__name__ == name
    assert loaded.num_parameters() == plan.params.pruned == ckpt.inspect(out).total_params
    updated = {n for n, w in loaded.state_dict().items() if not torch.equal(w, cut.state_dict()[n])}
    assert {n.split(".")[3] for n in updated} == {"mlp"}, "attention keeps its weights"
    assert any("experts" in n for n in updated)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["llama-mha", "qwen3-moe"])
def test_each_weight_keeps_its_own_data_type(kind: str, streaming: bool, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    model = small_model(kind, tie_word_embeddings=False).to(torch.bfloat16)
    model.save_pretrained(dense)
    rare = {"model.norm.weight": torch.float32, "lm_head.weight": torch.float16}
    generator = torch.Generator().manual_seed(0)

    def refine(tensors: dict[str, torch.Tensor]) -> None:
        for name, dtype in rare.items():
            noise = torch.rand(tensors[name].shape, generator=generator)
            tensors[name] = (tensors[name].float() + 1e-3 * noise).to(dtype)

    edit_tensors(dense, refine)
    method = ReconstructionConfig(method="least_squares")
    out = pruned(tmp_path, plan_for(model, "ragged"), method, streaming=streaming)
    stored = ckpt.stored_dtypes(out)
    assert stored == dict.fromkeys(stored, torch.bfloat16) | rare
    before, after = (weights_of(folder) for folder in (dense, out))
    assert all(torch.equal(after[name], before[name]) for name in rare)
