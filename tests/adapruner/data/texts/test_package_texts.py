"""Texts in installed packages: found without an import, hashed by content."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adapruner.data.texts.package_texts import find_package_text
from adapruner.data.texts.readers import read_records, read_rows, read_text
from tests.adapruner.data.pools import needs_gensim, resolve


def write_package(folder: Path) -> Path:
    package = folder / "adapruner_example"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n" + "# line\n" * 200)
    (package / "tests" / "cases.py").write_text("# test\n" * 200)
    return package


def test_code_is_hashed_by_content_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = [write_package(tmp_path / name) for name in ("one", "two")]
    texts = []
    for package in packages:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(package.parent)
            texts.append(find_package_text("package:adapruner_example#code", "setting"))
    one, two = texts
    assert one.location == packages[0] != two.location
    assert one.content_hash == two.content_hash
    monkeypatch.syspath_prepend(packages[0].parent)
    (packages[0] / "tests" / "cases.py").write_text("changed")
    assert find_package_text("package:adapruner_example#code", "") == one
    (packages[0] / "more.py").write_text("changed")
    assert find_package_text("package:adapruner_example#code", "").content_hash != one.content_hash
    assert "adapruner_example" not in sys.modules


@needs_gensim
def test_news_reports_are_documents() -> None:
    uri = "package:gensim#news"
    source = resolve(uri)[uri]
    records = list(read_records(source, text_field="text", max_records=1000))
    assert len({record.document for record in records}) == len(records) == 300
    assert records[0].text.startswith("Hundreds of people have been forced to vacate")
    assert sum(len(record.text) > 500 for record in records) > 280
    rows = list(read_rows(source, text_field="text", max_records=2))
    assert rows == [{"text": record.text} for record in records[:2]]


def test_the_code_of_optuna_is_split_into_passages_of_files() -> None:
    uri = "package:optuna#code"
    source = resolve(uri)[uri]
    records = list(read_records(source, text_field="text", max_records=10_000))
    documents = {record.document for record in records}
    assert "study/study.py" in documents
    assert not any("test" in Path(document).parts for document in documents)
    assert len(documents) > 100
    assert len(records) > 3 * len(documents)
    assert all(len(record.text) >= 1000 for record in records)
    assert records[0].text in read_text(source, text_field="text", max_records=3)
