"""What is cut computes what is masked, and reloads as what it was in memory."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from adapruner.models import checkpoint as ckpt
from adapruner.config import ModelConfig, ReconstructionConfig
from adapruner.errors import UserError
from adapruner.pruning.plan import PruningPlan, kept_groups, make_plan
from adapruner.pruning.apply import prune
from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning.surgery import apply, narrowed
from tests.models import KINDS, small_model, tokens

AS_IT_IS = ReconstructionConfig(method="none")

RELOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM
if sys.argv[2] == "import":
    import adapruner
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=sys.argv[2] == "trust")
ids = torch.tensor(json.loads(sys.argv[3]))
with torch.no_grad():
    cached = model.generate(ids, max_new_tokens=6, do_sample=False)
    plain = model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)
    logits = model(ids).logits
torch.testing.assert_close(cached, plain)
found = [type(model).__name__, model.num_parameters(), logits.double().flatten().tolist()]
print(json.dumps(found))
"""


def plan_for(model: Any, what: str) -> PruningPlan:
    """A plan of a shape: nothing, channels, whole KV groups, query heads a group; or ragged."""
    structures = describe_model(model)
    keep = []
    for index, dense in enumerate(structures.layers):
        channels = list(range(dense.mlp_channels))
        heads = list(range(dense.query_heads))
        per_group = dense.heads_per_group
        ragged = what == "ragged"
        if what == "channels" or (ragged and index % 2):
            channels = [c for c in channels if (5 * c + index) % 3]
        if (what == "kv_groups" or (ragged and index == 2)) and dense.kv_groups > 1:
            heads = [h for h in heads if h // per_group != index % dense.kv_groups]
        if (what == "query_heads" or (ragged and index == 0)) and per_group > 1:
            heads = [h for h in heads if h % per_group != index % per_group]
        keep.append((channels, heads))
    layout: Any = "per_layer" if what == "ragged" else "uniform"
    return make_plan(
        structures, keep, layout=layout, protected=(), requested=0.1, of="all", provenance={}
    )


@contextmanager
def masked(model: Any, plan: PruningPlan) -> Iterator[None]:
    """The dense model with what the plan removes multiplied by zero, by no code of the library."""
    handles = []
    head_dim = describe_model(model).head_dim
    for modules, kept in zip(layer_modules(model), plan.layers, strict=True):
        channel = torch.zeros(modules.down.in_features)
        channel[kept.channels()] = 1
        head = torch.zeros(modules.output.in_features).view(-1, head_dim)
        head[kept.heads()] = 1
        for linear, mask in ((modules.down, channel), (modules.output, head.flatten())):
            hook = lambda _, args, mask=mask: (args[0] * mask,)  # noqa: E731
            handles.append(linear.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_ratio_zero_leaves_the_logits_identical(kind: str) -> None:
    model, ids = small_model(kind), tokens(2, 12).long()
    plan = plan_for(model, "nothing")
    assert plan.ratio.achieved_all == 0
    before = model(ids).logits
    with narrowed(model, plan):
        assert torch.equal(model(ids).logits, before)
    apply(model, plan)
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("what", ["channels", "kv_groups", "query_heads", "ragged"])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_is_masked_is_reloaded(kind: str, what: str, tmp_path: Path) -> None:
    model, ids = small_model(kind), tokens(2, 12).long()
    plan = plan_for(model, what)
    before = model(ids).logits
    with masked(model, plan):
        expected = model(ids).logits
    with narrowed(model, plan):
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(ids).logits, before), "narrowed() must leave the dense model behind"

    dense, out = tmp_path / "dense", tmp_path / "out"
    out.mkdir()
    model.save_pretrained(dense)
    apply(model, plan)
    cut = model(ids).logits
    torch.testing.assert_close(cut, expected, atol=1e-5, rtol=1e-5)
    ckpt.save(model, dense, out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(reloaded(ids).logits, cut)
    assert ckpt.inspect(out).total_params == plan.params.pruned == reloaded.num_parameters()
    assert model.num_parameters() == plan.params.pruned
    assert str(tmp_path) not in (out / "config.json").read_text()


@pytest.mark.parametrize(
    ("what", "how", "name"),
    [
        ("channels", "plain", "LlamaForCausalLM"),
        ("ragged", "trust", "PerLayerLlamaForCausalLM"),
        ("ragged", "import", "PerLayerLlamaForCausalLM"),
    ],
)
def test_stock_transformers_loads_it_in_a_fresh_process(
    what: str, how: str, name: str, tmp_path: Path
) -> None:
    model, ids = small_model("llama"), tokens(2, 12).long()
    plan = plan_for(model, what)
    dense, stage, out = tmp_path / "dense", tmp_path / "plan", tmp_path / "out"
    stage.mkdir()
    out.mkdir()
    model.save_pretrained(dense)
    plan.write(stage / "plan.json")
    prune(dense, stage, stage, ModelConfig(source=str(dense), device="cpu"), AS_IT_IS, out)
    apply(model, plan)
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(out), how, json.dumps(ids.tolist())],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PATH": "", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        | ({} if how != "import" else {"PYTHONPATH": str(Path(__file__).parents[2])}),
    )  # fmt: skip
    loaded, params, logits = json.loads(done.stdout.splitlines()[-1])
    assert (loaded, params) == (name, plan.params.pruned)
    torch.testing.assert_close(
        torch.tensor(logits).view(2, 12, -1), model(ids).logits, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("method", ["none", "least_squares"])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("computed", ["float32", "bfloat16"])
def test_what_is_not_updated_is_bit_for_bit_what_was_stored(
    stored: torch.dtype, computed: Any, method: Any, tmp_path: Path
) -> None:
    model = small_model("llama").to(stored)
    dense, stage, out = tmp_path / "dense", tmp_path / "plan", tmp_path / "out"
    stage.mkdir()
    out.mkdir()
    model.save_pretrained(dense)
    texts = {"update": tokens(20, 16), "objective": tokens(4, 16, seed=1)}
    save_file(texts, stage / "pool.safetensors")
    plan = plan_for(model, "channels")
    plan.write(stage / "plan.json")
    settings = ModelConfig(source=str(dense), dtype=computed, device="cpu")
    prune(dense, stage, stage, settings, ReconstructionConfig(method=method), out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert reloaded.dtype == ckpt.stored_dtype(out) == stored
    apply(model, plan)
    found = reloaded.state_dict()
    for name, weight in model.state_dict().items():
        same = torch.equal(found[name], weight)
        assert same == (method == "none" or "down_proj" not in name), name


def test_a_pruned_model_can_be_pruned_again(tmp_path: Path) -> None:
    model, ids = small_model("qwen2"), tokens(1, 8).long()
    apply(model, plan_for(model, "ragged"))
    once = model.num_parameters()
    again = plan_for(model, "channels")
    with masked(model, again):
        expected = model(ids).logits
    apply(copy.deepcopy(model), again)
    apply(model, again)
    assert model.num_parameters() == again.params.pruned < once
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_plan_for_another_model_is_refused() -> None:
    with pytest.raises(UserError, match="make a plan for it"):
        apply(small_model("mistral"), plan_for(small_model("llama"), "channels"))


def test_groups_follow_their_heads() -> None:
    dense = describe_model(small_model("llama")).layers[0]
    assert kept_groups(dense, [0, 1]) == [0]
    assert kept_groups(dense, [1, 3]) == [0, 1]
