"""Hidden states between layers, in memory or, where they don't fit, in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapruner.models.streamed.memory import available_memory

SHARE = 0.5
"""Of the memory that is available; states that need more are kept in files."""


@contextmanager
def hidden_states(model: Any, tokens: int, boundaries: int = 1) -> Iterator[HiddenStates]:
    """Room for the states of `tokens` tokens at the inputs of as many layers as `boundaries`.

    Files are in the system's folder of temporary files (TMPDIR), which has to be on a disk; they
    are removed at the end.
    """
    device = model.get_input_embeddings().weight.device
    size = boundaries * tokens * model.config.hidden_size * model.dtype.itemsize
    if size <= SHARE * available_memory():
        yield HiddenStates(device)
        return
    with TemporaryDirectory(prefix="adapruner-states-") as folder:
        yield HiddenStates(device, Path(folder))


class HiddenStates:
    """Tensors by layer and batch, on the CPU or in the files of a folder."""

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        """`device` is that of the states when they are taken."""
        self._device, self._folder = device, folder
        self._tensors: dict[tuple[int, int], Tensor] = {}

    def put(self, layer: int, batch: int, states: Tensor) -> None:
        """Keeps the states of a batch at the input of a layer, without their graph."""
        states = states.detach().cpu()
        if self._folder is None:
            self._tensors[layer, batch] = states
        else:
            save_file({"states": states.contiguous()}, _file(self._folder, layer, batch))

    def take(self, layer: int, batch: int) -> Tensor:
        """The states that were kept last; they are kept no longer."""
        if self._folder is None:
            return self._tensors.pop((layer, batch)).to(self._device)
        file = _file(self._folder, layer, batch)
        states = load_file(file)["states"].to(self._device)
        file.unlink()
        return states


def _file(folder: Path, layer: int, batch: int) -> Path:
    return folder / f"{layer:04d}.{batch:06d}.safetensors"
