"""Sample-aware adaptive structured pruning of large language models.

The package itself imports nothing, so that a command answers at once. `import
adapruner.auto_classes` registers the classes of checkpoints whose layers differ in width with
Transformers' auto classes.
"""

__version__ = "0.1.0"
