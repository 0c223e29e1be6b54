"""A model whose decoder layers are dealt out to processes, by FSDP2 (arXiv 2304.11277)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from adapruner.models.streamed.layers import LayerSource, decoder_layers, empty_model


def load_sharded(checkpoint: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The causal language model of a checkpoint, in eval mode and frozen, dealt out.

    Each process of the default group has an equal part of every decoder layer, and embeddings, the
    last norm and the head. A layer is gathered while it runs, forward and backward, so all
    processes must run the same passes. Layers are read one at a time: each process reads all of
    them and keeps its part.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    model = empty_model(checkpoint, dtype)
    source = LayerSource(model, checkpoint, device)
    source.read_others()
    for index, layer in enumerate(decoder_layers(model)):
        source.read_layer(index)
        # A root of its own: the passes of the head alone, see `recovery.training.backward`, gather
        # nothing.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    return model
