"""The table's files."""

from __future__ import annotations

from pathlib import Path

import torch

from adapruner.importance.statistics import importance_table
from adapruner.importance.table import ImportanceSummary, ImportanceTable
from tests.models import small_model, tokens


def test_table_reads_back_from_its_files(tmp_path: Path) -> None:
    table = importance_table(small_model("llama"), tokens(5, 8), [0, 3], (0, 0, 1, 1, 1))
    table.write(tmp_path)
    again = ImportanceTable.read(tmp_path)
    assert (again.reference, again.length, again.domain) == ((0, 3), 8, (0, 0, 1, 1, 1))
    assert (again.samples, again.domains) == (5, 2)
    for group, parts in vars(table).items():
        for part, layers in parts.items() if isinstance(parts, dict) else ():
            assert all(map(torch.equal, layers, getattr(again, group)[part])), (group, part)
    summary = ImportanceSummary.read(tmp_path)
    assert (summary.samples, summary.sequence_length, summary.layers) == (5, 8, 4)


def test_a_table_that_is_computed_in_its_file_is_the_one_that_is_written(tmp_path: Path) -> None:
    model, ids = small_model("qwen3-moe"), tokens(9, 8)
    folders = [tmp_path / "written", tmp_path / "computed"]
    for folder in folders:
        folder.mkdir()
    importance_table(model, ids, [0, 3]).write(folders[0])
    importance_table(model, ids, [0, 3], out=folders[1])
    for name in (ImportanceTable.FILE, ImportanceSummary.FILE):
        written, computed = ((folder / name).read_bytes() for folder in folders)
        assert written == computed, name


def test_a_table_is_written_over_its_own_file(tmp_path: Path) -> None:
    table = importance_table(small_model("llama"), tokens(5, 8), [0, 3], out=tmp_path)
    before = (tmp_path / ImportanceTable.FILE).read_bytes()
    for own in (table, ImportanceTable.read(tmp_path)):
        own.write(tmp_path)
        assert (tmp_path / ImportanceTable.FILE).read_bytes() == before
