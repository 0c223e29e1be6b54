"""LoRA by several processes, each of which holds a part of the model and takes a part of a batch.

    torchrun --nproc-per-node N -m adapruner.recovery.distributed.processes FOLDER

FOLDER holds a request, see `recover_by_processes`, which starts N processes on this machine; the
merged checkpoint and `recovery.json` are written into it.

A step is that of one process but for rounding. Each process has all adapters, whose gradients are
summed, so that all optimizers do the same; only layers are dealt out, see `load_sharded`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from adapruner.config import DeviceConfig, FinetuneConfig
from adapruner.errors import UserError
from adapruner.models.distributed.launch import own_device, process_group, run_processes
from adapruner.models.distributed.sharding import load_sharded
from adapruner.models.families import family_of
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.choice import GIB, sizes_of
from adapruner.models.streamed.layers import decoder_layers, empty_model, in_order, stream_model
from adapruner.models.streamed.saving import save_layers
from adapruner.progress import announce
from adapruner.recovery.adapters import add_adapters, weight_changes
from adapruner.recovery.distributed.share import Share
from adapruner.recovery.finetune import RecoveryRequest, from_json, to_json
from adapruner.recovery.results import RecoveryResult
from adapruner.recovery.training.training import train
from adapruner.recovery.training.training_data import result_of, training_data

REQUEST = "request.json"
MERGED = "merged"

BYTES_PER_ADAPTER_WEIGHT = 20
"""float32: the weight, its gradient, two moments of the optimizer, and a copy that is summed."""
LAYERS_AT_ONCE = 2
"""One layer as it is gathered, and as the layer uses it."""


def recover_by_processes(request: RecoveryRequest, out: Path) -> RecoveryResult:
    """`lora.recover` by `request.processes` processes of this machine; on GPUs each takes one.

    `out` stays empty unless all of them succeed. Raises UserError as `lora.recover`, for a device
    that processes can't have, and when a process fails.
    """
    processes = request.processes
    _check_devices(request.model, processes)
    failure = (
        f"model.processes {processes}: a process of the fine-tuning failed, see its error above; "
        "use more of them if memory is short"
    )
    with TemporaryDirectory(prefix=".processes-", dir=out.parent) as name:
        folder = Path(name)
        (folder / REQUEST).write_text(to_json(request), encoding="utf-8")
        run_processes(__name__, folder, processes, failure)
        (folder / MERGED).replace(out)
        return RecoveryResult.read(folder)


def main(folder: Path) -> None:
    """The part of one process that torchrun started; the first one writes the result."""
    request = from_json((folder / REQUEST).read_text(encoding="utf-8"))
    model = own_device(request.model)
    is_cuda = ckpt.device_of(model).type == "cuda"
    with process_group(folder, "cpu:gloo,cuda:nccl" if is_cuda else "gloo") as (rank, world):
        data = replace(training_data(request), share=Share(rank, world))
        _announce(request, world)
        adapted = _adapted(request, model)
        curve = train(adapted, data, request.finetune, request.seed)
    if rank == 0:
        (folder / MERGED).mkdir()
        _merge(adapted, request.checkpoint, folder / MERGED)
        result_of(request, data, curve).write(folder)


def _check_devices(model: DeviceConfig, processes: int) -> None:
    device = ckpt.device_of(model)
    gpus = torch.cuda.device_count()
    lacks_gpus = device.type == "cuda" and (device.index is not None or processes > gpus)
    if device.type == "mps" or lacks_gpus:
        raise UserError(
            f"model.processes {processes} with model.device {model.device}: each process of the "
            f"fine-tuning needs a GPU of its own, torch sees {gpus}; use device: auto and at most "
            "as many processes, or device: cpu"
        )


def _announce(request: RecoveryRequest, world: int) -> None:
    checkpoint = request.checkpoint
    dtype = getattr(torch, ckpt.compute_dtype(request.model))
    sizes = sizes_of(checkpoint, dtype)
    adapters = BYTES_PER_ADAPTER_WEIGHT * _adapter_weights(checkpoint, request.finetune)
    parts = (sizes.layers // world, sizes.others, LAYERS_AT_ONCE * sizes.layer, adapters)
    own, others, gathered, trained = (f"{part / GIB:.2f}" for part in parts)
    announce(
        f"fine-tuning: {world} processes, {sum(parts) / GIB:.2f} GiB each and the activations: "
        f"{own} for 1/{world} of the layers, {gathered} for the one that runs, {others} for "
        f"embeddings and head, {trained} for adapters and optimizer"
    )


def _adapter_weights(checkpoint: Path, settings: FinetuneConfig) -> int:
    """The number of weights in the adapters of a model without experts."""
    model = empty_model(checkpoint, torch.float32)
    linear = [m for m in decoder_layers(model) for m in m.modules() if isinstance(m, nn.Linear)]
    return sum(settings.rank * (part.in_features + part.out_features) for part in linear)


def _adapted(request: RecoveryRequest, model: DeviceConfig) -> Any:
    dtype = getattr(torch, ckpt.compute_dtype(model))
    torch.manual_seed(request.seed)
    return add_adapters(
        load_sharded(request.checkpoint, ckpt.device_of(model), dtype), request.finetune
    )


def _merge(adapted: Any, checkpoint: Path, out: Path) -> None:
    """Writes the checkpoint with the changes of its weights, one layer at a time in memory."""
    changes = weight_changes(adapted)
    merged = stream_model(checkpoint, torch.device("cpu"), ckpt.stored_dtype(checkpoint))
    layers = family_of(merged.config.model_type, merged.config.architectures).layers

    def changed() -> Iterator[int]:
        for index in in_order(merged):
            for name in changes:
                if name.startswith(f"{layers}.{index}."):
                    weight = merged.get_parameter(name)
                    weight.copy_(weight.float() + changes[name]())
            yield index

    save_layers(merged, changed(), checkpoint, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
