"""How the remaining weights are updated after the cut: one module per method.

A module has

- `check_supported(structures)`: raises UnreachableError for a model that can't hold the result;
- `reconstruct(request)`: computes a correction of each layer of the cut model from the dense model.
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

FROM_GRAM_MATRICES = frozenset({"least_squares"})
"""Methods by which trials of the search are updated too, with `pruning.updates.gram_matrices`."""


def method_module(name: str) -> Any:
    """The module of a `reconstruction.method`."""
    return import_module(METHODS[name])


def uses_gram_matrices(name: str) -> bool:
    """Whether a `reconstruction.method` is computed from gram matrices."""
    return name in FROM_GRAM_MATRICES
