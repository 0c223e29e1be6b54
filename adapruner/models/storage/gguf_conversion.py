"""GGUF files as checkpoints: dequantised by Transformers, and checked to be complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapruner.errors import UserError, refused_as
from adapruner.models.families import family_of
from adapruner.progress import announce, hide_library_bars

GGUF_TYPES = {"gemma3": "gemma3_text"}
"""Architecture in a GGUF file -> the model type, where they differ."""

_PROBLEMS = {
    "missing_keys": "no tensor for",
    "unexpected_keys": "no place for the tensor",
    "mismatched_keys": "another shape than the model's:",
}
"""What Transformers reports of a loading -> how a message names it."""


def convert_gguf(file: Path, origin: Path, out: Path) -> None:
    """Writes the checkpoint in `file`, a copy of `origin`, to `out`, with weights in float32.

    Raises UserError, which names `origin`, for a file that can't be read, is not complete or has
    another architecture.
    """
    hide_library_bars()
    with _parsed_once():
        _check_gguf(file, origin)
        announce(f"dequantising {origin.name} to float32 (about 15 s for 135M parameters)")
        model, tokenizer = _load(file, origin)
    # With these attributes Transformers refuses to save a model that was loaded from GGUF.
    for holder, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)
    model.is_quantized = False
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Within it, a file is parsed once, and so is the map of its tensors' names.

    Transformers parses it for the config, the weights and the tokenizer, and makes the map for
    every module; both take seconds, whatever the size of the model.
    """
    import gguf

    parsed = cache(gguf.GGUFReader)
    faster = {
        "GGUFReader": lambda path: parsed(os.fspath(path)),
        "get_tensor_name_map": cache(gguf.get_tensor_name_map),
    }
    slower = {name: getattr(gguf, name) for name in faster}
    try:
        vars(gguf).update(faster)
        yield
    finally:
        vars(gguf).update(slower)


def _load(file: Path, origin: Path) -> tuple[Any, Any]:
    """The model, dequantised, and the tokenizer."""
    with refused_as(f"'{origin}' is not a readable GGUF model"):
        load: Any = AutoModelForCausalLM.from_pretrained
        model, loaded = load(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, trust_remote_code=False
        )
    _check_complete(loaded, origin)
    return model, tokenizer


def _check_complete(loaded: dict[str, Any], origin: Path) -> None:
    """Raises UserError for tensors without a place, and for weights that no tensor has.

    `loaded` is Transformers' account of the loading, which gives missing weights random values.
    """
    for kind, problem in _PROBLEMS.items():
        if names := sorted(map(str, loaded.get(kind) or ())):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"'{origin}' is not a complete GGUF model: {problem} '{names[0]}'{more}; "
                "fetch or convert it again"
            )


def _check_gguf(path: Path, origin: Path) -> None:
    """Raises UserError for an unsupported architecture and for another number of layers than the
    file says, before any weights are read: Transformers drops the surplus ones."""
    from gguf import GGUFReader

    with refused_as(f"'{origin}' is not a readable GGUF model"):
        reader = GGUFReader(path)
        architecture = str(reader.fields["general.architecture"].contents())
        expected = int(reader.fields[f"{architecture}.block_count"].contents())
        blocks = {int(t.name.split(".")[1]) for t in reader.tensors if t.name.startswith("blk.")}
    family_of(GGUF_TYPES.get(architecture, architecture), None)
    if blocks != set(range(expected)):
        raise UserError(
            f"'{origin}' is not a complete GGUF model: it has tensors of {len(blocks)} layers, its "
            f"block_count is {expected}; fetch or convert it again"
        )
