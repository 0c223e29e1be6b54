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
from adapruner.models.storage.checkpoint import MODELING_FILE, save_checkpoint
from adapruner.models.structures import layer_modules
from tests.adapruner.conftest import write_tokenizer
from tests.adapruner.models.checkpoints import MLP_WIDTHS, WIDTHS, own_widths, per_layer_model
from tests.models import KINDS, small_model, tokens

LAYOUTS = {"heads": WIDTHS, "mlp": MLP_WIDTHS}

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

# Loads what is not the model, as scripts do that trust no code.
UNTRUSTED = """
import json, sys
from transformers import AutoConfig, AutoTokenizer
sys.modules["adapruner"] = None
config = AutoConfig.from_pretrained(sys.argv[1])
widths = [layer.intermediate_size for layer in config.per_layer_config]
ids = AutoTokenizer.from_pretrained(sys.argv[1])("w7").input_ids
print(json.dumps([type(config).__name__, widths, ids]))
"""


def run_elsewhere(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code in a fresh process that can't see this repository and gets no answers."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, cwd=folder, stdin=subprocess.DEVNULL,
        env={"PATH": "", "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1",
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_its_own_widths(kind: str, layout: str) -> None:
    stock = small_model(kind)
    model = per_layer_model(stock, LAYOUTS[layout])
    head_dim = stock.config.head_dim
    for index, layer in enumerate(layer_modules(model)):
        dense = {"intermediate_size": 48, "num_attention_heads": 4}
        dense["num_key_value_heads"] = stock.config.num_key_value_heads
        if hasattr(layer.mlp, "experts"):
            dense |= {"num_experts": 4, "moe_intermediate_size": 48}
        widths = dense | own_widths(stock, LAYOUTS[layout]).get(index, {})
        channels = widths.get("moe_intermediate_size", widths["intermediate_size"])
        assert layer.down.in_features == channels * widths.get("num_experts", 1)
        assert layer.query.out_features == widths["num_attention_heads"] * head_dim
        assert layer.output.in_features == widths["num_attention_heads"] * head_dim
        assert layer.key.out_features == widths["num_key_value_heads"] * head_dim


@pytest.mark.parametrize("kind", KINDS)
def test_equal_widths_compute_what_the_stock_model_computes(kind: str) -> None:
    stock, ids = small_model(kind), tokens(2, 12).long()
    model = per_layer_model(stock, {})
    model.load_state_dict(stock.state_dict())
    assert torch.equal(model(ids).logits, stock(ids).logits)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_reloaded_checkpoint_gives_identical_logits(kind: str, layout: str, tmp_path: Path) -> None:
    stock, ids = small_model(kind), tokens(2, 12).long()
    dense, out = tmp_path / "dense", tmp_path / "out"
    stock.save_pretrained(dense)
    out.mkdir()
    model = per_layer_model(stock, LAYOUTS[layout])
    save_checkpoint(model, dense, out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(reloaded) is type(model)
    assert torch.equal(reloaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_equals_generation_without(kind: str, layout: str) -> None:
    model, ids = per_layer_model(small_model(kind), LAYOUTS[layout]), tokens(2, 8).long()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))


def test_checkpoints_load_with_their_own_code_where_the_package_is_absent(tmp_path: Path) -> None:
    ids = tokens(2, 12).long()
    models = {
        f"{kind}-{layout}": per_layer_model(small_model(kind), widths)
        for kind in KINDS
        for layout, widths in LAYOUTS.items()
    }
    for name, model in models.items():
        dense = tmp_path / f"{name}-dense"
        small_model(name.rpartition("-")[0]).save_pretrained(dense)
        (tmp_path / name).mkdir()
        save_checkpoint(model, dense, tmp_path / name)
    done = run_elsewhere(
        FRESH_PROCESS, tmp_path, json.dumps(ids.tolist()), *(str(tmp_path / m) for m in models)
    )
    assert done.returncode == 0, done.stderr
    for name, model in models.items():
        logits = torch.load(tmp_path / name / "logits.pt")
        torch.testing.assert_close(logits, model(ids).logits, atol=1e-6, rtol=1e-5)
        assert (tmp_path / f"{name}-again" / MODELING_FILE).is_file()


def test_config_and_tokenizer_of_equal_heads_load_without_trust(tmp_path: Path) -> None:
    stock, dense, out = small_model("llama"), tmp_path / "dense", tmp_path / "out"
    stock.save_pretrained(dense)
    write_tokenizer(dense)
    out.mkdir()
    save_checkpoint(per_layer_model(stock, MLP_WIDTHS), dense, out)
    done = run_elsewhere(UNTRUSTED, tmp_path, str(out))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["LlamaConfig", [40, 48, 24, 17], [7]]


def test_a_checkpoint_of_the_own_type_with_equal_heads_still_loads(tmp_path: Path) -> None:
    model, ids = per_layer_model(small_model("llama"), MLP_WIDTHS), tokens(2, 12).long()
    model.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"model_type": "adapruner_llama"}))
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert reloaded.config.model_type == "adapruner_llama"
    assert torch.equal(reloaded(ids).logits, model(ids).logits)


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
