"""Sample-aware adaptive structured pruning of large language models.

The package itself imports no library, so that a command answers at once. It sets defaults of
PyTorch's threads, see `threads`. `import adapruner.auto_classes` registers the classes of
checkpoints whose layers differ in width with Transformers' auto classes.
"""

from adapruner.threads import set_defaults

__version__ = "0.1.0"

set_defaults()
