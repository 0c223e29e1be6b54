"""Python source code: passages of whole parts of the files that hold no tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.data.texts import python_code
from adapruner.errors import UserError


def test_passages_are_whole_parts_and_unchanged() -> None:
    function = "def f():\n    return [\n" + "        1,\n" * 30 + "    ]\n"
    code = "\n\n".join([function] * 12)
    passages = list(python_code.passages("\n\n" + code))
    assert len(passages) == 4
    for passage in passages:
        assert passage in code
        assert len(passage) >= python_code.PASSAGE_CHARACTERS > len(passage) - len(function)
        assert passage.startswith("def f()") and passage.endswith("    ]")


def test_a_file_shorter_than_a_passage_has_none() -> None:
    assert list(python_code.passages("import sys\n\nprint(sys.path)\n")) == []


def test_files_are_sorted_and_without_tests(tmp_path: Path) -> None:
    names = ["b.py", "a/c.py", "tests/d.py", "a/test_e.py", "conftest.py", "f.txt", "latest.py"]
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = [file.relative_to(tmp_path).as_posix() for file in python_code.files(tmp_path)]
    assert found == ["a/c.py", "b.py", "latest.py"]


def test_a_file_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes("# coding: latin-1\n# ü\n".encode("latin-1"))
    assert python_code.read(file) == "# coding: latin-1\n# ü\n"
    file.write_bytes(b"# \xfc\n")
    with pytest.raises(UserError, match=r"a\.py is not a readable Python file"):
        python_code.read(file)
