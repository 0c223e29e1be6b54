"""Fine-tuning by several processes that hold one model together."""
