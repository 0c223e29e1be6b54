"""Sample-aware adaptive structured pruning of large language models."""
