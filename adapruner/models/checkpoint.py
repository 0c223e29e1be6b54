"""Checkpoints: checked, loaded and saved.

A checkpoint directory is what stock Transformers writes. It is told apart by its content hash and
never changed in place.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from adapruner.models import modeling
from adapruner.config import DeviceConfig
from adapruner.errors import UserError
from adapruner.models.families import PER_LAYER_PREFIX, family_of
from adapruner.hashing import IGNORED
from adapruner.progress import hide_library_bars
from adapruner.models.structures import Structures, describe_model

MODELING_FILE = "modeling_adapruner.py"
PLAN_FILE = "pruning_plan.json"
INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
SMALL_SUFFIXES = (".json", ".model", ".jinja")
SMALL_NAMES = ("merges.txt", "vocab.txt")
_NOT_CHECKPOINT = IGNORED | {PLAN_FILE}
_OLD_BUFFERS = "rotary_emb.inv_freq"  # old Llama checkpoints store what is computed today


def inspect(checkpoint: Path) -> Structures:
    """The structures of the checkpoint in a directory, from its config and file headers alone.

    Raises UserError when there is no config or no safetensors, when a file is truncated, when the
    architecture is not supported, or when config and weights do not fit each other.
    """
    config = read_config(checkpoint)
    family_of(config.model_type, config.architectures)
    try:
        build: Any = AutoModelForCausalLM.from_config
        with torch.device("meta"):
            model = build(config, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"'{checkpoint}': no model fits its config: {first_line(error)}") from None
    _check_tensors(model, tensor_shapes(checkpoint))
    _check_tied(checkpoint, config)
    return describe_model(model)


def read_config(checkpoint: Path) -> Any:
    """The Transformers config of a checkpoint directory."""
    file = checkpoint / "config.json"
    if not file.is_file():
        raise UserError(f"'{checkpoint}' is not a checkpoint: it has no config.json")
    try:
        return AutoConfig.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # what is wrong in a config is told by every kind of exception
        raise UserError(f"'{file}' can't be read as a model's config: {first_line(error)}") from None


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files that make up the model: those of the index, else the single one."""
    index = checkpoint / INDEX_FILE
    names = {WEIGHTS_FILE}
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"'{index}' is no index of safetensors; fetch it again") from None
    elif not (checkpoint / WEIGHTS_FILE).is_file():
        raise UserError(
            f"'{checkpoint}' has no {WEIGHTS_FILE} and no {INDEX_FILE}; other formats are not read"
        )
    for name in names:
        if Path(name).name != name or not (checkpoint / name).is_file():
            raise UserError(f"'{checkpoint}' lacks '{name}', which its index names; fetch it again")
    return [checkpoint / name for name in sorted(names)]


def tensor_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a checkpoint by name, from the files' headers; no weight is read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(checkpoint):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"'{file}' is damaged or truncated ({first_line(error)}); fetch it again"
            ) from None
    return shapes


def load_model(checkpoint: Path, model: DeviceConfig, dtype: torch.dtype | None = None) -> Any:
    """The causal language model of a checkpoint directory, in eval mode, its weights frozen.

    `dtype` replaces the configured one. `device: auto` spreads a model over all accelerators when
    there are any; otherwise it is on the CPU. Raises UserError when part of the model would have
    to live on disk.
    """
    hide_library_bars()
    spread = model.device == "auto" and torch.cuda.is_available()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=dtype or model.dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        device_map="auto" if spread else None,
    )
    if any(p.is_meta for p in loaded.parameters()):
        raise UserError(
            f"'{checkpoint}' does not fit in the memory of the devices at hand; "
            "use more or larger ones, or dtype: bfloat16"
        )
    if not spread:
        loaded = loaded.to(device_of(model))
    return loaded.eval().requires_grad_(False)


def device_of(model: DeviceConfig) -> torch.device:
    """The device that `model.device` names. Raises UserError when it is not there."""
    if model.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(model.device)
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= count:
        raise UserError(
            f"model.device '{model.device}' is not there: torch sees {count} devices of type "
            f"{device.type}; use device: auto"
        )
    return device


def load_tokenizer(checkpoint: Path) -> Any:
    """The tokenizer of a checkpoint directory."""
    try:
        return AutoTokenizer.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # what is wrong in its files is told by every kind of exception
        raise UserError(f"'{checkpoint}' has no usable tokenizer: {first_line(error)}") from None


def save(model: Any, beside: Path, out: Path) -> None:
    """Writes weights and config of `model` to `out` (which exists and is empty).

    The tokenizer and other small files come from the checkpoint `beside`; tied embeddings are
    written once; a config of a per-layer type brings its modelling file along. The config's dtype
    is that of the weights.
    """
    from huggingface_hub import save_torch_state_dict

    for file in _small_files(beside):
        if file.name != INDEX_FILE:
            shutil.copyfile(file, out / file.name)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight.data_ptr() == embedding.weight.data_ptr()
    left_out = {"lm_head.weight"} if tied else set()
    weights = {n: t.contiguous() for n, t in model.state_dict().items() if n not in left_out}
    fields = model.config.to_dict() | {"dtype": str(model.dtype).removeprefix("torch.")}
    fields.pop("_name_or_path", None)  # where it lay on this machine is nobody's business
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (out / "config.json").write_text(text, encoding="utf-8")
    _add_modeling_file(out)
    save_torch_state_dict(weights, str(out), metadata={"format": "pt"})
    for file in weight_files(out):
        file.chmod(0o644)  # the writer leaves them to the owner alone


def pass_on(checkpoint: Path, out: Path) -> None:
    """The checkpoint's files into `out`, hard-linked where that can be; no code but ours."""
    for file in checkpoint_files(checkpoint):
        link_or_copy(file.resolve(), out / file.name)
    _add_modeling_file(out)


def stored_dtype(checkpoint: Path) -> torch.dtype:
    """The type that the weights are stored in, by the first floating-point tensor."""
    for file in weight_files(checkpoint):
        with safe_open(file, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                found: torch.dtype = tensors.get_slice(name)[:0].dtype
                if found.is_floating_point:
                    return found
    raise UserError(f"'{checkpoint}' holds no floating-point weights")


def size_on_disk(checkpoint: Path) -> int:
    """Bytes of a checkpoint's weight files."""
    return sum(file.stat().st_size for file in weight_files(checkpoint))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """The files that belong to a checkpoint: weights, config, tokenizer. Code is never one."""
    return _small_files(checkpoint) + weight_files(checkpoint)


def _small_files(checkpoint: Path) -> list[Path]:
    found = (
        path
        for path in checkpoint.iterdir()
        if path.suffix in SMALL_SUFFIXES or path.name in SMALL_NAMES
    )
    return sorted(p for p in found if p.is_file() and p.name not in _NOT_CHECKPOINT)


def _add_modeling_file(out: Path) -> None:
    """Writes the modelling file that a per-layer checkpoint's config points to."""
    fields = json.loads((out / "config.json").read_text(encoding="utf-8"))
    if str(fields.get("model_type", "")).startswith(PER_LAYER_PREFIX):
        shutil.copyfile(modeling.__file__, out / MODELING_FILE)


def _check_tensors(model: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError unless the tensors are just those that the model has."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    optional = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    for name, shape in wanted.items():
        if name not in shapes and name not in optional:
            raise UserError(f"the weights lack '{name}', which config.json asks for")
        if shapes.get(name, shape) != shape:
            raise UserError(
                f"config.json does not fit the weights: '{name}' is {list(shapes[name])}, "
                f"the config asks for {list(shape)}"
            )
    for name in shapes:
        if name not in wanted and not name.endswith(_OLD_BUFFERS):
            raise UserError(f"the weights hold '{name}', which config.json has no place for")


def _check_tied(checkpoint: Path, config: Any) -> None:
    """Raises UserError when the config ties two embeddings that are stored and differ."""
    found = {}
    for file in weight_files(checkpoint) if config.tie_word_embeddings else ():
        with safe_open(file, framework="pt") as tensors:
            for name in {"lm_head.weight", "model.embed_tokens.weight"} & set(tensors.keys()):
                found[name] = tensors.get_tensor(name)
    if len(found) == 2 and not torch.equal(*found.values()):
        raise UserError(
            f"'{checkpoint}': config.json ties the embeddings, but the weights hold two different "
            "ones; set tie_word_embeddings to false in config.json"
        )
