"""Models whose decoder layers are read from the checkpoint one at a time."""
