"""Models whose layers differ in width: built, saved and loaded like stock models."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM

from adapruner.models import modeling
from adapruner.models.checkpoint import MODELING_FILE, save_checkpoint
from adapruner.models.structures import layer_modules
from tests.adapruner.models.checkpoints import WIDTHS, per_layer_model
from tests.models import KINDS, small_model, tokens

# Loads checkpoints with their own code, as anyone without this package does.
FRESH_PROCESS = """
import json, sys, torch
from transformers import AutoModelForCausalLM
sys.modules["adapruner"] = None  # any import of it fails
ids = torch.tensor(json.loads(sys.argv[1]))
for checkpoint in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    with torch.no_grad():
        logits = model(ids).logits
        cached = model.generate(ids, max_new_tokens=6, do_sample=False)
        plain = model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)
        assert cached.equal(plain)
        model.save_pretrained(checkpoint + "-again")
        again = AutoModelForCausalLM.from_pretrained(checkpoint + "-again", trust_remote_code=True)
        assert again(ids).logits.equal(logits)
    torch.save(logits, checkpoint + "/logits.pt")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_its_own_widths(kind: str) -> None:
    stock = small_model(kind)
    model = per_layer_model(stock, WIDTHS)
    head_dim = stock.config.head_dim
    for index, layer in enumerate(layer_modules(model)):
        dense = {"intermediate_size": 48, "num_attention_heads": 4}
        dense["num_key_value_heads"] = stock.config.num_key_value_heads
        widths = dense | WIDTHS[index]
        assert layer.down.in_features == widths["intermediate_size"]
        assert layer.query.out_features == widths["num_attention_heads"] * head_dim
        assert layer.output.in_features == widths["num_attention_heads"] * head_dim
        assert layer.key.out_features == widths["num_key_value_heads"] * head_dim


@pytest.mark.parametrize("kind", KINDS)
def test_equal_widths_compute_what_the_stock_model_computes(kind: str) -> None:
    stock, ids = small_model(kind), tokens(2, 12).long()
    model = per_layer_model(stock, {})
    model.load_state_dict(stock.state_dict())
    assert torch.equal(model(ids).logits, stock(ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_reloaded_checkpoint_gives_identical_logits(kind: str, tmp_path: Path) -> None:
    stock, ids = small_model(kind), tokens(2, 12).long()
    dense, out = tmp_path / "dense", tmp_path / "out"
    stock.save_pretrained(dense)
    out.mkdir()
    model = per_layer_model(stock, WIDTHS)
    save_checkpoint(model, dense, out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(reloaded) is type(model)
    assert torch.equal(reloaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_equals_generation_without(kind: str) -> None:
    model, ids = per_layer_model(small_model(kind), WIDTHS), tokens(2, 8).long()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


def test_checkpoints_load_with_their_own_code_where_the_package_is_absent(tmp_path: Path) -> None:
    ids = tokens(2, 12).long()
    models = {kind: per_layer_model(small_model(kind), WIDTHS) for kind in KINDS}
    for kind, model in models.items():
        dense = tmp_path / f"{kind}-dense"
        small_model(kind).save_pretrained(dense)
        (tmp_path / kind).mkdir()
        save_checkpoint(model, dense, tmp_path / kind)
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, json.dumps(ids.tolist()),
         *(str(tmp_path / kind) for kind in KINDS)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": "", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1",
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for kind, model in models.items():
        logits = torch.load(tmp_path / kind / "logits.pt")
        torch.testing.assert_close(logits, model(ids).logits, atol=1e-6, rtol=1e-5)
        assert (tmp_path / f"{kind}-again" / MODELING_FILE).is_file()


def test_modeling_file_imports_only_transformers_torch_and_the_hub() -> None:
    tree = ast.parse(Path(modeling.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else []
        )
    }  # fmt: skip
    allowed = {"transformers", "torch", "huggingface_hub"}
    assert names - sys.stdlib_module_names <= allowed


def test_a_class_is_made_once_and_can_be_pickled() -> None:
    config_class = modeling.PerLayerLlamaConfig
    assert modeling.PerLayerLlamaConfig is config_class
    config = config_class(num_hidden_layers=2, per_layer_config={1: {"intermediate_size": 8}})
    copy = pickle.loads(pickle.dumps(config))
    assert type(copy) is config_class
    assert copy.per_layer_config[1].intermediate_size == 8


def test_config_checks_field_types_but_not_head_counts() -> None:
    config = modeling.PerLayerLlamaConfig(hidden_size=32, num_attention_heads=3, head_dim=8)
    assert config.num_attention_heads == 3
    with pytest.raises(StrictDataclassError):
        config.hidden_size = "wide"


@pytest.mark.parametrize("name", ["PerLayerNonesuchConfig", "PerLayerLlama", "LlamaConfig"])
def test_a_name_that_is_no_per_layer_class_raises_attribute_error(name: str) -> None:
    assert not hasattr(modeling, name)
