"""Checkpoints in the formats of other runtimes: one module per format.

A module has

- `check_supported(contents)`: raises UserError for a checkpoint that the format can't hold exactly;
- `file_name(name, tensor_type)`: the name of the export of the checkpoint `name`;
- `write(checkpoint, contents, tensor_type, out)`: writes the file or directory `out`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

FORMATS = {
    "gguf": "adapruner.export.gguf",
    "decilm": "adapruner.export.decilm",
}
"""Name of `export.to` -> its module."""


def format_module(name: str) -> Any:
    """The module of a format."""
    return import_module(FORMATS[name])
