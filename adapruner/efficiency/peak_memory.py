"""Peak memory of generating with a checkpoint, in a process that has done nothing else.

    python -m adapruner.peak_memory < REQUEST.json

The libraries are imported once; each checkpoint then gets a fork of its own, so that none sees what
another one left. On the CPU the figure is the process' largest resident size, libraries included
(and told beside it); on CUDA it is what torch allocated at most, summed over the devices.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def main() -> None:
    """Reads the request from standard input; prints a list of figures, one a checkpoint, as JSON.

    The request: `checkpoints`, the `model` section of a configuration, `tokens` of the prompt,
    `new_tokens`.
    """
    import adapruner.models.checkpoint  # noqa: F401  (before the forks, which then share it)

    request = json.load(sys.stdin)
    checkpoints = request.pop("checkpoints")
    found = []
    for checkpoint in checkpoints:
        with ProcessPoolExecutor(1, get_context("fork")) as fork:
            found.append(fork.submit(_measured, checkpoint, **request).result())
    print(json.dumps(found))


def _measured(
    checkpoint: str, model: dict[str, Any], tokens: int, new_tokens: int
) -> dict[str, Any]:
    import torch

    from adapruner.models import checkpoint as ckpt
    from adapruner.config import ModelConfig

    before = _resident()
    loaded = ckpt.load_model(Path(checkpoint), ModelConfig.model_validate(model))
    device = loaded.get_input_embeddings().weight.device
    prompt = torch.arange(tokens, device=device)[None] * 7919 % loaded.config.vocab_size
    with torch.inference_mode():
        output = loaded(prompt, use_cache=True, logits_to_keep=1)
        for _ in range(new_tokens - 1):
            chosen = output.logits[:, -1:].argmax(-1).to(device)
            output = loaded(chosen, past_key_values=output.past_key_values, use_cache=True)
    if device.type == "cuda":
        peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
        return {"peak_bytes": sum(peaks), "libraries_bytes": 0, "of": "cuda"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_bytes": peak, "libraries_bytes": before, "of": "process"}


def _resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
