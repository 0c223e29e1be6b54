"""Several processes that work on one model, started by torchrun."""
