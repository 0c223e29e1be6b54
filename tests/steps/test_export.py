from __future__ import annotations

from pathlib import Path

from adapruner.config import ExportConfig
from steps.export import export
from tests.adapruner.export.checkpoints import small, write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "timing.json")


def test_the_fine_tuned_checkpoint_is_written_in_each_format(stages_folder: Path) -> None:
    finetuned = stages_folder / "finetuned"
    finetuned.mkdir()
    write(small("llama", "mlp"), finetuned / "checkpoint")
    out = export.entrypoint(finetuned, ExportConfig(to=("gguf", "decilm"), type="q8_0"))
    assert names(out) == ["model-decilm", "model-q8_0.gguf"]
    assert names(export.entrypoint(finetuned, ExportConfig())) == []
