"""The update of what is kept, from the activations of the dense model."""
