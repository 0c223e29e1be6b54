"""Checkpoints: checked, loaded, saved and copied.

A checkpoint is a directory in the layout of stock Transformers: safetensors, config and tokenizer.
It is identified by its content hash and never changed in place. Code in it never runs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from adapruner.config import DeviceConfig
from adapruner.errors import UserError, refused_as
from adapruner.files import link_or_copy, read_json
from adapruner.models import auto_classes, modeling
from adapruner.models.devices import compute_dtype, device_of
from adapruner.models.families import PER_LAYER_CLASS, Family, family_of
from adapruner.models.storage.files import (
    BRANCH,
    CONFIG_FILE,
    FAMILY_FILE,
    PLAN_FILE,
    checkpoint_files,
    config_fields,
    family_beside,
    small_files,
    timed_tokens,
    update_shares,
)
from adapruner.models.storage.weights import (
    INDEX_FILE,
    check_tensors,
    check_tied,
    rewrite_tensors,
    size_on_disk,
    stored_dtype,
    stored_dtypes,
    stored_weights,
    tensor_shapes,
    weight_files,
)
from adapruner.models.structures import Structures, describe_model
from adapruner.progress import hide_library_bars

__all__ = [
    "BRANCH",
    "FAMILY_FILE",
    "MODELING_FILE",
    "PLAN_FILE",
    "auto_map",
    "checkpoint_files",
    "compute_dtype",
    "copy_checkpoint",
    "device_of",
    "inspect",
    "load_model",
    "load_tokenizer",
    "read_config",
    "rewrite_checkpoint",
    "save_checkpoint",
    "size_on_disk",
    "stored_dtype",
    "stored_dtypes",
    "timed_tokens",
    "update_shares",
]

MODELING_FILE = "modeling_adapruner.py"
"""The copy of `modeling.py` in a per-layer checkpoint, which its `auto_map` names."""


def inspect(checkpoint: Path) -> Structures:
    """The structures of a checkpoint, from its config and the headers of its weight files alone.

    Raises UserError for a directory without config or safetensors, a truncated file, an
    unsupported architecture, and weights that do not fit the config.
    """
    config = read_config(checkpoint)
    model = model_without_weights(config, str(checkpoint))
    if (file := checkpoint / "generation_config.json").is_file():  # read with the weights
        with refused_as(f"'{file}' is not a readable generation config"):
            GenerationConfig.from_pretrained(checkpoint, local_files_only=True)
    check_tensors(model, tensor_shapes(checkpoint))
    check_tied(checkpoint, config)
    return describe_model(model)


def model_without_weights(config: Any, where: str) -> Any:
    """The model of a Transformers config on the meta device; `where` is where the config is from.

    Raises UserError for an unsupported architecture and for a config that no model fits.
    """
    family_of(config.model_type, config.architectures)
    build: Any = AutoModelForCausalLM.from_config
    with refused_as(f"'{where}': no model fits its config"), torch.device("meta"):
        return build(config, trust_remote_code=False)


def read_config(checkpoint: Path) -> Any:
    """The Transformers config of a checkpoint. Raises UserError for one that is not valid."""
    config_fields(checkpoint)
    _add_family(checkpoint)
    with refused_as(f"'{checkpoint / CONFIG_FILE}' is not a readable model config"):
        return AutoConfig.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )


def check_context(checkpoint: Path, tokens: int) -> None:
    """Raises UserError where windows of `tokens` tokens are longer than the model's context."""
    context = getattr(read_config(checkpoint).get_text_config(), "max_position_embeddings", None)
    if context is not None and tokens > context:
        raise UserError(
            f"the run has windows of {tokens} tokens, the model a context of {context}; shorten "
            "sequence_length of calibration, finetune and evaluation"
        )


def check_prompts(checkpoint: Path, prompts: Iterable[str]) -> None:
    """Raises UserError for a prompt that the tokenizer makes no tokens of."""
    tokenizer = load_tokenizer(checkpoint)
    for prompt in prompts:
        if not tokenizer(prompt)["input_ids"]:
            raise UserError(
                f"evaluation.prompts: {prompt!r} has no tokens in this model; give another text"
            )


def load_model(checkpoint: Path, model: DeviceConfig, dtype: torch.dtype | None = None) -> Any:
    """The causal language model of a checkpoint, in eval mode, its weights frozen.

    An adapter in its folder `adapter` is attached, not merged. `dtype` replaces the configured one.
    With `device: auto` the model is spread over all GPUs if there are any. Raises UserError when
    part of the model would be offloaded to disk.
    """
    hide_library_bars()
    _add_family(checkpoint)
    spread = model.device == "auto" and torch.cuda.is_available()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=dtype or compute_dtype(model),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        device_map="auto" if spread else None,
    )
    if any(p.is_meta for p in loaded.parameters()):
        raise UserError(
            f"'{checkpoint}' does not fit in the memory of the available devices; "
            "use more or larger ones, or dtype: bfloat16"
        )
    if (checkpoint / BRANCH).is_dir():
        loaded.load_adapter(str(checkpoint / BRANCH))
    if not spread:
        loaded = loaded.to(device_of(model))
    return loaded.eval().requires_grad_(False)


def load_tokenizer(checkpoint: Path) -> Any:
    """The tokenizer of a checkpoint. Raises UserError when it has no usable one."""
    with refused_as(f"'{checkpoint}' has no usable tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )
        tokenizer.decode(tokenizer("a")["input_ids"])  # some settings are read at their first use
        return tokenizer


def save_checkpoint(
    model: Any, beside: Path, out: Path, dtypes: Mapping[str, torch.dtype] | None = None
) -> None:
    """Writes the weights and config of `model` to `out`, an existing, empty directory.

    The tokenizer and other small files are copied from the checkpoint `beside`. Tied embeddings
    are stored once. A per-layer checkpoint includes its modelling file. `dtypes` has the types that
    weights are stored in, by name; others have the model's, and so has the config.
    """
    from huggingface_hub import save_torch_state_dict

    write_config(model, beside, out)
    weights = dict(stored_weights(model, dtypes=dtypes))
    save_torch_state_dict(weights, str(out), metadata={"format": "pt"})
    for file in weight_files(out):
        file.chmod(0o644)  # the library creates them readable by their owner alone


def write_config(model: Any, beside: Path, out: Path) -> None:
    """What `save_checkpoint` writes, without the weights."""
    for file in small_files(beside):
        if file.name != INDEX_FILE:
            shutil.copyfile(file, out / file.name)
    fields = model.config.to_dict() | {"dtype": str(model.dtype).removeprefix("torch.")}
    fields.pop("_name_or_path", None)  # a path of this machine
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (out / "config.json").write_text(text, encoding="utf-8")
    _add_modeling_file(out)


def copy_checkpoint(checkpoint: Path, out: Path) -> None:
    """Copies the files of a checkpoint to `out`, as hard links where possible.

    Code is not copied; a per-layer checkpoint gets this package's modelling file.
    """
    for file in checkpoint_files(checkpoint):
        link_or_copy(file, out / file.name)
    _add_modeling_file(out)


def rewrite_checkpoint(
    checkpoint: Path, out: Path, change: Callable[[str, Tensor], Tensor]
) -> None:
    """Writes a checkpoint to `out` with the weights that `change` makes of its name and weight.

    Data types and shapes stay, and so do the other files. One weight at a time is in memory.
    """
    for file in small_files(checkpoint):
        shutil.copyfile(file, out / file.name)
    _add_modeling_file(out)
    for file in weight_files(checkpoint):
        rewrite_tensors(file, out / file.name, change)


def _add_family(checkpoint: Path) -> None:
    """Adds the row beside a checkpoint to the table, and its classes to the auto classes."""
    if (family := family_beside(checkpoint)) is not None:
        auto_classes.add(family)


def auto_map(family: Family, stock_config: bool) -> dict[str, str]:
    """Auto class -> class in the modelling file, for a checkpoint whose layers differ.

    A checkpoint with the stock config names the model classes alone: Transformers asks for trust
    before it reads a config, or a tokenizer, of a checkpoint that names a config class.
    """
    names = {
        "AutoModel": family.per_layer_decoder,
        "AutoModelForCausalLM": family.per_layer_architecture,
    }
    if not stock_config:
        names["AutoConfig"] = family.per_layer_config
    module = MODELING_FILE.removesuffix(".py")
    return {auto_class: f"{module}.{name}" for auto_class, name in names.items()}


def _add_modeling_file(out: Path) -> None:
    architectures = read_json(out / "config.json").get("architectures") or [""]
    if str(architectures[0]).startswith(PER_LAYER_CLASS):
        shutil.copyfile(modeling.__file__, out / MODELING_FILE)
