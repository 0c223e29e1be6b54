"""Import this module to load per-layer checkpoints with Transformers' auto classes.

    import adapruner.auto_classes
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("runs/demo/checkpoint")

No code from the checkpoint runs. `adapruner.models.storage.checkpoint` registers the classes, too.
"""

import adapruner.models.auto_classes  # noqa: F401
