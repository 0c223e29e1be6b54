"""How the remaining weights are updated after the cut: one module per method."""

METHODS = {
    "least_squares": "adapruner.pruning.reconstruction.least_squares",
    "bias": "adapruner.pruning.reconstruction.bias",
    "none": "adapruner.pruning.reconstruction.none",
}
"""Name of `reconstruction.method` -> its module."""
