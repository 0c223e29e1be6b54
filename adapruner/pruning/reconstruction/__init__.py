"""How the remaining weights are updated after the cut: one module per method.

A module has

- `check_supported(structures)`: raises UnreachableError for a model that can't hold the result;
- `reconstruct(request)`: computes the correction from the dense model and returns a function that
  applies it to the cut model;
- `USES_GRAM_MATRICES`: whether trials of the search are updated by `pruning.gram_matrices`.
"""

METHODS = {
    "least_squares": "adapruner.pruning.reconstruction.least_squares",
    "bias": "adapruner.pruning.reconstruction.bias",
    "none": "adapruner.pruning.reconstruction.none",
}
"""Name of `reconstruction.method` -> its module."""
