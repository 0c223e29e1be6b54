from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFReader

from adapruner.config import ExportConfig
from adapruner.models.groups import GROUPS_FILE, read_groups
from adapruner.recovery.grouped import write_merged
from steps.export import export
from tests.adapruner.export.checkpoints import small, write
from tests.adapruner.recovery.test_grouped import tuned


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "timing.json")


def test_the_fine_tuned_checkpoint_is_written_in_each_format(stages_folder: Path) -> None:
    finetuned = stages_folder / "finetuned"
    finetuned.mkdir()
    write(small("llama", "mlp"), finetuned / "checkpoint")
    out = export.entrypoint(finetuned, ExportConfig(to=("gguf", "decilm"), type="q8_0"))
    assert names(out) == ["model-decilm", "model-q8_0.gguf"]
    assert names(export.entrypoint(finetuned, ExportConfig())) == []


def test_a_model_that_was_tuned_in_4_bit_keeps_its_codes(stages_folder: Path) -> None:
    finetuned, dense = stages_folder / "finetuned", stages_folder / "dense"
    write(small("llama", intermediate_size=64).bfloat16(), dense)
    (finetuned / "checkpoint").mkdir(parents=True)
    write_merged(tuned(dense), dense, finetuned / "checkpoint")
    out = export.entrypoint(finetuned, ExportConfig(to=("gguf",), type="q4_1"))
    groups = read_groups(finetuned / GROUPS_FILE, ["model.layers.0.mlp.down_proj.weight"])
    stored = {tensor.name: tensor for tensor in GGUFReader(out / "model-q4_1.gguf").tensors}
    down = stored["blk.0.ffn_down.weight"]
    (expected,) = groups.values()
    assert np.array_equal(gguf.dequantize(down.data, down.tensor_type), expected.dense())
