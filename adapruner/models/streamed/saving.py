"""Writing a streamed model layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from adapruner.models.families import family_of
from adapruner.models.storage.checkpoint import write_config
from adapruner.models.storage.weights import INDEX_FILE, stored_dtypes, stored_weights


def save_layers(model: Any, done: Iterator[int], beside: Path, out: Path) -> None:
    """Writes what `save_checkpoint` does, with one file of weights for each layer.

    `done` changes the layers of the streamed `model` and yields the index of each in its turn; the
    config is written after all. Weights have the data types of `beside`. A file has its final name
    once it is complete. Embeddings, the last norm and the head are in the first file.
    """
    family = family_of(model.config.model_type, model.config.architectures)
    dtypes = stored_dtypes(beside)
    depth, layers = model.config.num_hidden_layers, f"{family.layers}."
    others = stored_weights(model, dtypes=dtypes)
    weights = {name: weight for name, weight in others if not name.startswith(layers)}
    files, size = dict.fromkeys(weights, _name(0, depth)), _write(weights, out / _name(0, depth))
    for index in done:
        weights = dict(stored_weights(model, f"{layers}{index}.", dtypes))
        size += _write(weights, out / _name(index + 1, depth))
        files |= dict.fromkeys(weights, _name(index + 1, depth))
    index_fields = {"metadata": {"total_size": size}, "weight_map": files}
    text = json.dumps(index_fields, indent=2, sort_keys=True) + "\n"
    (out / INDEX_FILE).write_text(text, encoding="utf-8")
    write_config(model, beside, out)


def _name(number: int, depth: int) -> str:
    return f"model-{number + 1:05d}-of-{depth + 1:05d}.safetensors"


def _write(weights: dict[str, Tensor], file: Path) -> int:
    """The bytes of the weights."""
    partial = file.with_name(f".{file.name}.part")
    try:
        save_file(weights, partial, metadata={"format": "pt"})
        partial.chmod(0o644)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return sum(weight.nbytes for weight in weights.values())
