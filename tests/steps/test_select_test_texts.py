from __future__ import annotations

from pathlib import Path

from adapruner.data.pool import TestTexts as Texts  # pytest would collect a class Test...
from steps.select_test_texts import select_test_texts
from steps.zenml_support.workspace import result_files
from tests.adapruner.conftest import Workplace


def test_the_test_texts_are_the_only_part_of_the_pool_that_is_selected(
    workplace: Workplace, stages_folder: Path
) -> None:
    out = select_test_texts.entrypoint(workplace.pool)
    assert [path.name for path in result_files(out)] == [Texts.FILE]
    assert (out / Texts.FILE).read_bytes() == (workplace.pool / Texts.FILE).read_bytes()
