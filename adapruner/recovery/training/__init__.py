"""What the methods of recovery share: the examples, the loss and the training loop."""
