"""GGUF files of small models, and their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFReader

from adapruner.export.export import export
from tests.adapruner.export.checkpoints import write


def exported(model: Any, folder: Path, tensor_type: str = "f32") -> GGUFReader:
    """The file of a model, `out.gguf` in `folder`; its checkpoint is `in`."""
    export(write(model, folder / "in"), "gguf", tensor_type, folder / "out.gguf")
    return GGUFReader(folder / "out.gguf")


def key(reader: GGUFReader, name: str) -> Any:
    """The value of a key; `*` stands for the architecture."""
    architecture = reader.fields["general.architecture"].contents()
    return reader.fields[name.replace("*", architecture)].contents()


def values(reader: GGUFReader) -> dict[str, np.ndarray[Any, Any]]:
    """Tensor name -> values in float32."""
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
