"""The importance table by several processes, each of which takes its part of the samples.

    torchrun --nproc-per-node N -m adapruner.importance.processes FOLDER

FOLDER holds an `ImportanceRequest` and the samples, see `write_request`; tables are written into
it. `write_table` starts N processes on this machine; for several machines, start torchrun on each
with a checkpoint, and a FOLDER that all of them can read and write.

Process r of N runs the batches r, r + N, .... Every number of a table is computed by one process
and is zero in the others, so that the sum of their bits is exact: the table does not depend on N.
Tables are files, which gloo reduces, also where models run on GPUs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.config import DeviceConfig
from adapruner.files import Artifact
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceSummary, ImportanceTable
from adapruner.models.distributed.launch import own_device, process_group, run_processes
from adapruner.models.streamed.choice import load_or_stream
from adapruner.progress import announce

SAMPLES = "samples.safetensors"


class ImportanceRequest(Artifact):
    """What a table is computed of: see `importance_table`."""

    FILE: ClassVar[str] = "request.json"

    checkpoint: Path
    device: DeviceConfig
    reference: tuple[int, ...]
    domain: tuple[int, ...]
    groups: tuple[str, ...]


def write_request(request: ImportanceRequest, tokens: Tensor, folder: Path) -> None:
    """Writes a request and its samples, int [N, T], to an existing folder."""
    request.write(folder)
    save_file({"tokens": tokens.contiguous()}, folder / SAMPLES)


def write_table(request: ImportanceRequest, tokens: Tensor, processes: int, out: Path) -> None:
    """Writes the table of `importance_table` to `out`, by this number of processes of this machine.

    Each loads, or streams, the model; on GPUs each takes one. Raises UserError when a process
    fails, see `run_processes`.
    """
    announce(f"importance: {len(tokens)} samples, dealt out to {processes} processes")
    failure = (
        f"model.processes {processes}: a process of the importance pass failed, see its error "
        "above; set it to 1 if memory is short"
    )
    with TemporaryDirectory(prefix=".importance-", dir=out) as name:
        folder = Path(name)
        write_request(request, tokens, folder)
        run_processes(__name__, folder, processes, failure)
        for file in (ImportanceTable.FILE, ImportanceSummary.FILE):
            (folder / file).rename(out / file)


def main(folder: Path) -> None:
    """The part of one process that torchrun started; the first one writes the table."""
    with process_group(folder, "gloo") as share:
        request, tokens = ImportanceRequest.read(folder), load_file(folder / SAMPLES)["tokens"]
        model = load_or_stream(request.checkpoint, own_device(request.device), "2 reads")
        reference, domain, groups = list(request.reference), request.domain, request.groups
        with _room(folder, share[0]) as out:
            table = importance_table(model, tokens, reference, domain, share, groups, out)
            for tensor in table.tensors().values():
                dist.reduce(tensor.view(torch.int32), dst=0)
                table.release()


@contextmanager
def _room(folder: Path, process: int) -> Iterator[Path]:
    """Where a process's table is: the first one's is the sum of all, the others are removed."""
    if process == 0:
        yield folder
        return
    with TemporaryDirectory(prefix="part-", dir=folder) as own:
        yield Path(own)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
