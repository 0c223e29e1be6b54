"""DeciLM checkpoints, read back by Transformers where this package is absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from adapruner.errors import UserError
from adapruner.export.export import export
from tests.adapruner.export.checkpoints import small, write
from tests.adapruner.models.checkpoints import per_layer_model
from tests.adapruner.models.test_modeling import run_elsewhere
from tests.models import BASE, random_model

READ = """
import copy, json, sys
from transformers import AutoConfig
sys.modules["adapruner"] = None
for path in sys.argv[1:]:
    config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    blocks = copy.deepcopy(config.block_configs)
    print(json.dumps({
        "type": config.model_type, "head_dim": config.head_dim, "vocab_size": config.vocab_size,
        "ffn": [block.ffn.intermediate_size for block in blocks],
        "multiples": [hasattr(block.ffn, "ffn_mult") for block in blocks],
        "groups": [config.num_attention_heads // b.attention.n_heads_in_group for b in blocks],
        "no_op": any(block.attention.no_op or block.ffn.no_op for block in blocks),
        "stored": json.loads(config.to_json_string())["block_configs"] == blocks,
    }))
"""


def exported(model: Any, folder: Path) -> Path:
    export(write(model, folder / "in"), "decilm", None, folder / "out")
    return folder / "out"


def test_the_config_has_the_widths_of_each_layer(tmp_path: Path) -> None:
    folders = []
    for kind in ("llama", "mistral", "qwen2"):
        (tmp_path / kind).mkdir()
        folders.append(str(exported(small(kind, "mlp"), tmp_path / kind)))
    done = run_elsewhere(READ, tmp_path, *folders)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert json.loads(line) == {
            "type": "nemotron-nas", "head_dim": 8, "vocab_size": 320, "ffn": [40, 48, 24, 17],
            "multiples": [False] * 4, "groups": [2] * 4, "no_op": False, "stored": True,
        }  # fmt: skip


def test_weights_and_tokenizer_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    out = exported(small("llama", "mlp"), tmp_path)
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "configuration_decilm.py", "tokenizer.json"} <= names
    assert "modeling_adapruner.py" not in names
    assert os.path.samefile(out / "model.safetensors", tmp_path / "in" / "model.safetensors")  # noqa: PTH121
    assert "lm_head.weight" not in load_file(out / "model.safetensors")


def test_multiples_of_256_have_the_ffn_mult_that_stands_for_them(tmp_path: Path) -> None:
    fields = BASE | {"model_type": "llama", "hidden_size": 200, "vocab_size": 320}
    stock = random_model(fields | {"intermediate_size": 1280}, "LlamaForCausalLM")
    widths = {i: {"intermediate_size": width} for i, width in enumerate((256, 768, 1024))}
    out = exported(per_layer_model(stock, widths), tmp_path)
    for block, width in zip(
        json.loads((out / "config.json").read_text())["block_configs"],
        (256, 768, 1024, 1280),
        strict=True,
    ):
        rounded = int(2 * block["ffn"]["ffn_mult"] * 200 / 3)
        assert -(-rounded // 256) * 256 == width == block["ffn"]["intermediate_size"]


@pytest.mark.parametrize(
    ("kind", "layers", "message"),
    [
        ("llama", "heads", "layout: uniform"),
        ("qwen3", "equal", "it takes the families"),
        ("gemma2", "equal", "it takes the families"),
    ],
)
def test_what_decilm_does_not_hold_is_refused(
    kind: str, layers: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        exported(small(kind, layers), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_earlier_export_is_replaced_and_other_folders_are_not(tmp_path: Path) -> None:
    out = exported(small("llama", "mlp"), tmp_path)
    (out / "note.txt").write_text("of the earlier export")
    export(tmp_path / "in", "decilm", None, out)
    assert not (out / "note.txt").exists()
    for other in (tmp_path / "in", tmp_path / "thesis"):
        other.mkdir(exist_ok=True)
        with pytest.raises(UserError, match="is no export"):
            export(tmp_path / "in", "decilm", None, other)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "thesis"}
