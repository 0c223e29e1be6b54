"""The importance table of a streamed model, and of several processes, bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapruner.config import DeviceConfig, ModelConfig
from adapruner.importance.processes import ImportanceRequest, write_table
from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceSummary, ImportanceTable
from adapruner.models import activations
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed import states
from adapruner.models.streamed.layers import stream_model
from adapruner.models.streamed.passes import LayerRunner
from adapruner.models.structures import layer_modules
from tests.models import KINDS, small_model, tokens


def written(table: ImportanceTable, folder: Path) -> bytes:
    folder.mkdir()
    table.write(folder)
    return (folder / ImportanceTable.FILE).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_batches_that_run_layer_by_layer_give_the_same_table(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = small_model(kind), tokens(7, 10)
    whole = importance_table(model, ids, [0, 3, 4])
    run, ran = LayerRunner.run, list[int]()

    def counted(self: LayerRunner, index: int, hidden: torch.Tensor) -> torch.Tensor:
        ran.append(index)
        return run(self, index, hidden)

    monkeypatch.setattr(LayerRunner, "run", counted)
    monkeypatch.setattr(activations, "MOST", 0.0)
    monkeypatch.setattr(activations, "SMALL", 0)
    by_layer = importance_table(model, ids, [0, 3, 4])
    layers = range(len(layer_modules(model)))
    assert ran == 2 * [*layers, *reversed(layers)], "two batches"
    assert written(whole, tmp_path / "whole") == written(by_layer, tmp_path / "by_layer")


IN_BFLOAT16 = ("llama", "gemma2", "qwen3-moe")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float32") for kind in KINDS), *((kind, "bfloat16") for kind in IN_BFLOAT16)],
)
def test_the_table_of_every_family_is_that_of_the_whole_model(
    kind: str, dtype: str, tmp_path: Path
) -> None:
    dense, ids = tmp_path / "dense", tokens(7, 10)
    small_model(kind).save_pretrained(dense)
    whole = ckpt.load_model(dense, ModelConfig(source="", device="cpu", dtype=dtype))
    streamed = stream_model(dense, torch.device("cpu"), getattr(torch, dtype))
    tables = [importance_table(model, ids, [0, 3, 4]) for model in (whole, streamed)]
    assert written(tables[0], tmp_path / "whole") == written(tables[1], tmp_path / "streamed")


def test_states_that_do_not_fit_are_kept_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense, ids = tmp_path / "dense", tokens(7, 10)
    small_model("llama").save_pretrained(dense)
    streamed = stream_model(dense, torch.device("cpu"), torch.float32)
    in_memory = importance_table(streamed, ids, [0, 3, 4])
    monkeypatch.setattr(states, "SHARE", 0.0)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    on_disk = importance_table(streamed, ids, [0, 3, 4])
    assert written(in_memory, tmp_path / "memory") == written(on_disk, tmp_path / "files")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_the_parts_of_processes_are_numbers_of_the_table_and_zeros(processes: int) -> None:
    model, ids = small_model("qwen3-moe-mixed"), tokens(19, 10)
    whole = importance_table(model, ids, [0, 3, 4, 9]).tensors()
    parts = [
        importance_table(model, ids, [0, 3, 4, 9], share=(process, processes)).tensors()
        for process in range(processes)
    ]
    for name, tensor in whole.items():
        bits = sum(part[name].view(torch.int32) for part in parts)
        assert isinstance(bits, torch.Tensor) and torch.equal(bits, tensor.view(torch.int32))
        owners = sum((part[name] != 0).int() for part in parts)
        assert isinstance(owners, torch.Tensor) and int(owners.max()) <= 1


@pytest.mark.slow
def test_the_table_of_processes_that_torchrun_starts_is_that_of_one(tmp_path: Path) -> None:
    dense, ids, reference = tmp_path / "dense", tokens(19, 10), [0, 3, 4, 9]
    model, domain = small_model("llama-biased"), tuple(n % 2 for n in range(19))
    model.save_pretrained(dense)
    request = ImportanceRequest(
        checkpoint=dense,
        device=DeviceConfig(device="cpu", streaming=True),
        reference=tuple(reference),
        domain=domain,
        groups=("fisher", "element"),
    )
    one = importance_table(model, ids, reference, domain, groups=request.groups)
    (several := tmp_path / "several").mkdir()
    write_table(request, ids, 3, several)
    assert written(one, tmp_path / "one") == (several / ImportanceTable.FILE).read_bytes()
    assert {file.name for file in several.iterdir()} == {
        ImportanceTable.FILE, ImportanceSummary.FILE,
    }  # fmt: skip
