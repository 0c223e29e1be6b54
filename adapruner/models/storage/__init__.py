"""Checkpoints on disk: where they come from, their files, and loading and saving them."""
