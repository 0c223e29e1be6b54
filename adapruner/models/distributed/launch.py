"""Starting processes of this machine, and what each of them does first and last."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from adapruner.config import DeviceConfig
from adapruner.errors import UserError
from adapruner.files import replace_text
from adapruner.progress import console
from adapruner.threads import IS_SET, cores

_ERROR = "error.txt"
"""The file of the folder with the message of a UserError that ended a process."""


def run_processes(module: str, folder: Path, processes: int, failure: str) -> None:
    """Runs `python -m MODULE FOLDER` in processes of this machine, by torchrun.

    The CPU's cores are dealt out unless OMP_NUM_THREADS is set. When a process fails, torchrun ends
    the others. Raises UserError then: the one that a process raised within `process_group`, else
    with the message `failure`, and the error is on standard error.
    """
    threads = {"OMP_NUM_THREADS": str(max(cores() // processes, 1))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", module, str(folder)]
    environment = threads | os.environ if IS_SET else os.environ | threads
    if subprocess.run(command, env=environment, check=False).returncode:
        error = folder / _ERROR
        raise UserError(error.read_text(encoding="utf-8") if error.is_file() else failure)


@contextmanager
def process_group(folder: Path, backend: str) -> Iterator[tuple[int, int]]:
    """Within it, this process, which torchrun started, can exchange tensors; its rank and world.

    Only the first process prints messages. A UserError ends the process; `run_processes` raises it.
    """
    dist.init_process_group(backend)
    console.quiet = dist.get_rank() > 0
    try:
        yield dist.get_rank(), dist.get_world_size()
    except UserError as error:
        replace_text(folder / _ERROR, str(error))
        raise SystemExit(1) from None
    dist.destroy_process_group()


def own_device(device: DeviceConfig) -> DeviceConfig:
    """One GPU for each process of a machine, in turns, unless the settings name another device."""
    if device.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    gpu = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
    return device.model_copy(update={"device": f"cuda:{gpu}"})
