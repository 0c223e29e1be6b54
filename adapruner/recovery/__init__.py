"""Recovery of the pruned model by fine-tuning: one module per method."""

METHODS = {
    "lora": "adapruner.recovery.lora",
    "none": "adapruner.recovery.none",
}
"""Name of `finetune.method` -> its module."""
