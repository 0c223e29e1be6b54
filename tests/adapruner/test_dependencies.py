from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapruner import dependencies
from adapruner.dependencies import source_files

FILES = {
    "library/__init__.py": "",
    "library/absolute.py": "",
    "library/aliased.py": "",
    "library/inside_function.py": "",
    "library/relative.py": "from library import indirect",
    "library/indirect.py": "",
    "library/table/__init__.py": 'METHODS = {"one": "library.table.one"}',
    "library/table/one.py": "from . import shared",
    "library/table/shared.py": "",
    "library/pages/__init__.py": "",
    "library/pages/templates/page.j2": "",
    "library/unrelated.py": "",
    "library/defaults.yaml": "",
    "library/main.py": """
import library.absolute
from library import aliased as a
from library.table import METHODS
import json, elsewhere.module
DEFAULTS = "defaults.yaml"
LOADER = "library.pages"
def function():
    from library.inside_function import x
    from .relative import y
""",
    "elsewhere/module.py": "",
}


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(dependencies, "ROOT", tmp_path)
    yield tmp_path
    dependencies._read.cache_clear()
    dependencies.module_file.cache_clear()


def names(project: Path, module: str) -> set[str]:
    return {path.relative_to(project).as_posix() for path in source_files(module, ("library",))}


def test_imports_of_every_form_tables_of_modules_and_data_files_are_followed(
    project: Path,
) -> None:
    expected = set(FILES) - {"library/unrelated.py", "elsewhere/module.py", "library/__init__.py"}
    assert names(project, "library.main") - {"library/__init__.py"} == expected


def test_a_module_without_imports_depends_on_itself_alone(project: Path) -> None:
    assert names(project, "library.unrelated") == {"library/unrelated.py"}


def test_untracked_modules_and_what_only_they_import_are_left_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "UNTRACKED", ("library.table", "library.relative"))
    files = names(project, "library.main")
    assert "library/absolute.py" in files
    assert not {"library/table/one.py", "library/relative.py", "library/indirect.py"} & files


def test_every_untracked_module_exists() -> None:
    for module in dependencies.UNTRACKED:
        assert dependencies.module_file(module) is not None, module


@pytest.mark.parametrize("name", ["not a module", "adapruner/files.py", "", "adapruner.no_such"])
def test_a_string_that_names_no_module_has_no_file(name: str) -> None:
    assert dependencies.module_file(name) is None
