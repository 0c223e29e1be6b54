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

from adapruner import modeling
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.families import PER_LAYER_PREFIX
from adapruner.hashing import IGNORED
from adapruner.progress import quieten_libraries
from adapruner.structures import Structures, describe

MODELING_FILE = "modeling_adapruner.py"
PLAN_FILE = "pruning_plan.json"
KEPT_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".jinja", ".py"})
_NOT_CHECKPOINT = IGNORED | {PLAN_FILE}
KEPT_NAMES = frozenset({"merges.txt", "vocab.txt"})


def inspect(checkpoint: Path, *, trust_remote_code: bool = False) -> Structures:
    """The structures of the checkpoint in a directory, from its config and file headers alone.

    Raises UserError when there is no config or no safetensors, when a file is truncated, when the
    architecture is not supported, or when config and weights do not fit each other.
    """
    config = read_config(checkpoint, trust_remote_code=trust_remote_code)
    return describe(config, tensor_shapes(checkpoint, config))


def read_config(checkpoint: Path, *, trust_remote_code: bool = False) -> Any:
    """The Transformers config of a checkpoint directory."""
    file = checkpoint / "config.json"
    if not file.is_file():
        raise UserError(f"'{checkpoint}' is not a checkpoint: it has no config.json")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        own = str(fields.get("model_type", "")).startswith(PER_LAYER_PREFIX)
        return AutoConfig.from_pretrained(
            checkpoint, local_files_only=True, trust_remote_code=trust_remote_code and not own
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"'{file}' can't be read as a model's config: {one_line(error)}") from None


def tensor_shapes(checkpoint: Path, config: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a checkpoint by name, from the files' headers; no weight is read."""
    files = sorted(checkpoint.glob("*.safetensors"))
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [checkpoint / name for name in names]
    if not files:
        raise UserError(f"'{checkpoint}' has no *.safetensors file; other formats are not read")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except FileNotFoundError:
            raise UserError(f"'{checkpoint}' lacks '{file.name}', which its index names") from None
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"'{file}' is damaged or truncated ({one_line(error)}); fetch it again"
            ) from None
    return shapes


def load_model(checkpoint: Path, model: ModelConfig, dtype: str | None = None) -> Any:
    """The causal language model of a checkpoint directory, in eval mode, its weights frozen.

    `dtype` replaces the configured one; "auto" is the type that the weights are stored in.
    `device: auto` spreads a model over all accelerators when there are any; otherwise it is on the
    CPU. Raises UserError when part of the model would have to live on disk.
    """
    quieten_libraries()
    own = read_config(checkpoint, trust_remote_code=model.trust_remote_code)
    remote = model.trust_remote_code and not own.model_type.startswith(PER_LAYER_PREFIX)
    spread = model.device == "auto" and torch.cuda.is_available()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=dtype or model.dtype,
        local_files_only=True,
        trust_remote_code=remote,
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


def device_of(model: ModelConfig) -> torch.device:
    """The device that `model.device` names. Raises UserError when it is not there."""
    if model.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if model.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device '{model.device}' was asked for, but torch sees no CUDA device")
    return torch.device(model.device)


def load_tokenizer(checkpoint: Path) -> Any:
    """The tokenizer of a checkpoint directory."""
    try:
        return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"'{checkpoint}' has no usable tokenizer: {one_line(error)}") from None


def save(model: Any, beside: Path, out: Path) -> None:
    """Writes weights and config of `model` to `out` (which exists and is empty).

    The tokenizer and other small files come from the checkpoint `beside`; tied embeddings are
    written once; a config of a per-layer type brings its modelling file along.
    """
    from huggingface_hub import save_torch_state_dict

    for file in checkpoint_files(beside):
        if not file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(file, out / file.name)
    fields = model.config.to_dict()
    fields.pop("_name_or_path", None)  # where it lay on this machine is nobody's business
    (out / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    if fields["model_type"].startswith(PER_LAYER_PREFIX):
        shutil.copyfile(modeling.__file__, out / MODELING_FILE)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {n: t.detach().contiguous() for n, t in model.state_dict().items() if n not in tied}
    save_torch_state_dict(weights, str(out), metadata={"format": "pt"})
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)  # the writer leaves them to the owner alone


def stored_dtype(checkpoint: Path) -> torch.dtype:
    """The type that most of a checkpoint's matrices are stored in: that of its first one."""
    with safe_open(sorted(checkpoint.glob("*.safetensors"))[0], framework="pt") as tensors:
        names = sorted(tensors.keys())
        found: torch.dtype = tensors.get_tensor(names[0])[:0].dtype
    return found


def size_on_disk(checkpoint: Path) -> int:
    """Bytes of a checkpoint's weight files."""
    return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def checkpoint_files(path: Path) -> list[Path]:
    """The files of a directory that belong to a checkpoint, by name; none without a config."""
    if not (path / "config.json").is_file():
        return []
    found = (p for p in path.iterdir() if p.suffix in KEPT_SUFFIXES or p.name in KEPT_NAMES)
    return sorted(p for p in found if p.is_file() and p.name not in _NOT_CHECKPOINT)
