"""Recovery of the pruned model by fine-tuning: one module per method.

The module of a method has one function, `recover(request: RecoveryRequest, out: Path) ->
RecoveryResult`, with the types of `adapruner.recovery.finetune`. It writes a checkpoint to `out`,
an empty directory, and returns how it was trained.
"""

METHODS = {
    "lora": "adapruner.recovery.lora",
    "grouped": "adapruner.recovery.grouped",
    "ast": "adapruner.recovery.sparse.ast",
    "none": "adapruner.recovery.none",
}
"""Name of `finetune.method` -> its module."""
