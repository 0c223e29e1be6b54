"""Typed JSON artifacts, whole-file replacement, manifests, flattening."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from adapruner.errors import UserError
from adapruner.files import Artifact, file_manifest, flatten, flush, link_or_copy, replace_text


class Note(Artifact):
    FILE: ClassVar[str] = "note.json"

    text: str
    values: dict[str, float] = Field(default_factory=dict)


def test_artifact_reads_back_from_its_file(tmp_path: Path) -> None:
    note = Note(text="ä", values={"x": float("inf")})
    assert not Note.exists(tmp_path)
    note.write(tmp_path)
    assert Note.exists(tmp_path)
    assert Note.read(tmp_path) == note


@pytest.mark.parametrize(
    "content", [b'{"texts": "a"}', b"[]", b'{"text": "a", "more": 1}', b"{", b"", b"\xff"]
)
def test_a_file_that_is_not_the_artifact_is_refused_with_its_path(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / Note.FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"note\.json"):
        Note.read(tmp_path)


def test_missing_artifact_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"note\.json"):
        Note.read(tmp_path)


def test_failed_replacement_leaves_the_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    replace_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_text(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(UserError, match="can't be written"):
        replace_text(tmp_path / "absent" / "page.html", "new")


def test_link_shares_the_file_behind_a_symbolic_link(tmp_path: Path) -> None:
    source, alias, target = (tmp_path / name for name in ("source", "alias", "target"))
    source.write_text("content")
    alias.symlink_to(source)
    link_or_copy(alias, target)
    assert target.stat().st_ino == source.stat().st_ino
    assert not target.is_symlink()


def test_manifest_changes_with_the_files_below(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("a")
    before = file_manifest(tmp_path)
    assert set(before) == {"folder/file"}
    (tmp_path / "folder" / "file").write_text("ab")
    assert file_manifest(tmp_path) != before


def test_nested_mappings_are_flattened_to_dotted_names() -> None:
    value = {"a": {"b": 1, "c": {"d": [2]}}, "e": None}
    assert dict(flatten(value)) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_what_gets_a_new_name_is_flushed_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    files = [folder / "a", folder / "inner" / "b"]
    for file in files:
        file.write_text("x")
    flushed = list[int]()
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))
    flush(folder)
    assert sorted(flushed) == sorted(file.stat().st_ino for file in files)
    flushed.clear()
    flush(files[0])
    assert flushed == [files[0].stat().st_ino]
