"""Sample-aware adaptive structured pruning of large language models.

Importing this package teaches Transformers' auto classes to load checkpoints whose layers differ
in width, with no remote code. It imports torch and Transformers to do so, which takes seconds.
"""

from adapruner.registration import register

__version__ = "0.1.0"

register()
