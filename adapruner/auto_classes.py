"""Import this module to load per-layer checkpoints with Transformers' auto classes.

    import adapruner.auto_classes
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("runs/demo/checkpoint")

No remote code is run. `adapruner.models.checkpoint` registers the classes by itself.
"""

import adapruner.models.auto_classes  # noqa: F401
