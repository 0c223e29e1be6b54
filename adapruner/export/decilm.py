"""DeciLM, the checkpoint of Nemotron-NAS: a Llama with a config for each block.

vLLM, SGLang and MLX have classes for it. vLLM takes any width of an MLP from `intermediate_size`;
the others take multiples of 256, from `ffn_mult`, which is written where all widths are such
multiples. All layers have the same number of query heads.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from adapruner.errors import UserError
from adapruner.export import decilm_config
from adapruner.export.contents import Contents, refuse_layers
from adapruner.files import link_or_copy, write_json
from adapruner.models.storage.checkpoint import checkpoint_files
from adapruner.serving_targets import PORTABLE_MULTIPLE

DEFAULT_TYPE = None

FAMILIES = ("llama", "mistral", "qwen2")
"""Families that DeciLM's decoder computes exactly: no norms of queries and keys, SiLU."""

CONFIG_FILE = "configuration_decilm.py"

_REPLACED = ("per_layer_config", "auto_map", "architectures", "model_type", "_name_or_path")


def check_supported(contents: Contents) -> None:
    """Raises UserError for a model that a DeciLM checkpoint can't hold."""
    family = contents.structures.family
    if family.model_type not in FAMILIES or contents.activation != "silu":
        raise UserError(
            f"DeciLM can't hold {family.architecture} with {contents.activation}; it takes "
            f"the families {', '.join(FAMILIES)} with silu"
        )
    if contents.heads_differ:
        raise refuse_layers("DeciLM", contents, "its layers have the same number of query heads")


def file_name(name: str, tensor_type: str | None) -> str:
    """The name of the directory. The weights keep their type."""
    return f"{name}-decilm"


def write(checkpoint: Path, contents: Contents, tensor_type: str | None, out: Path) -> None:
    """Writes the directory `out`: the checkpoint with another config. Weights are hard links."""
    out.mkdir()
    for file in checkpoint_files(checkpoint):
        if file.name != "config.json":
            put = link_or_copy if file.suffix == ".safetensors" else shutil.copyfile
            put(file, out / file.name)
    shutil.copyfile(decilm_config.__file__, out / CONFIG_FILE)
    write_json(out / "config.json", _fields(contents), sort_keys=True)


def _fields(contents: Contents) -> dict[str, Any]:
    """The content of config.json."""
    config, layers = contents.config, contents.layers
    fields = {k: v for k, v in config.to_dict().items() if k not in _REPLACED}
    multiples = all(layer.mlp_channels % PORTABLE_MULTIPLE == 0 for layer in layers)
    blocks = []
    for layer in layers:
        ffn: dict[str, Any] = {"intermediate_size": layer.mlp_channels, "no_op": False}
        if multiples:
            ffn["ffn_mult"] = 1.5 * layer.mlp_channels / contents.structures.hidden_size
        attention = {"n_heads_in_group": layer.heads_per_group, "no_op": False}
        parts = {"attention": attention, "ffn": ffn}
        blocks.append({k: v | {"replace_with_linear": False} for k, v in parts.items()})
    biases = {"attention_bias": False, "qkv_bias": True}  # Qwen2: not in the output projection
    return {
        **fields,
        **(biases if contents.structures.family.model_type == "qwen2" else {}),
        "architectures": ["DeciLMForCausalLM"],
        "model_type": decilm_config.DeciLMConfig.model_type,
        "auto_map": {
            "AutoConfig": f"{CONFIG_FILE.removesuffix('.py')}.{decilm_config.DeciLMConfig.__name__}"
        },
        "block_configs": blocks,
        "head_dim": contents.structures.head_dim,
        "intermediate_size": layers[0].mlp_channels,
        "max_position_embeddings": contents.context_length,
        "num_attention_heads": layers[0].query_heads,
        "num_key_value_heads": layers[0].kv_groups,
        "sliding_window": None,
    }
