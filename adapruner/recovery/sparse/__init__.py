"""Training of weights and 2:4 masks together."""
