"""How the remaining weights are updated after the cut: one module per method.

A module has

- `check_supported(structures)`: raises UnreachableError for a model that can't hold the result;
- `reconstruct(request)`: computes a correction of each layer of the cut model from the dense model;
- `USES_GRAM_MATRICES`: whether trials of the search are updated by `pruning.gram_matrices`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

METHODS = {
    "least_squares": "adapruner.pruning.reconstruction.least_squares",
    "bias": "adapruner.pruning.reconstruction.bias",
    "none": "adapruner.pruning.reconstruction.none",
}
"""Name of `reconstruction.method` -> its module."""


def method_module(name: str) -> Any:
    """The module of a `reconstruction.method`."""
    return import_module(METHODS[name])


def uses_gram_matrices(name: str) -> bool:
    """Whether a `reconstruction.method` is computed from gram matrices."""
    return bool(method_module(name).USES_GRAM_MATRICES)
