from __future__ import annotations

from pathlib import Path

import pytest

from adapruner.hashing import IGNORED, hash_directory, hash_json


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "results" / "below").mkdir(parents=True)
    (tmp_path / "results" / "plan.json").write_text("{}")
    (tmp_path / "results" / "below" / "weights").write_bytes(b"\0\1")
    return tmp_path / "results"


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_timings_and_caches_are_not_content(directory: Path, name: str) -> None:
    before = hash_directory(directory)
    (directory / "below" / name).write_text("1.5")
    assert hash_directory(directory) == before


def test_contents_and_relative_names_are_content(directory: Path, tmp_path: Path) -> None:
    before = hash_directory(directory)
    moved = directory.rename(tmp_path / "elsewhere")
    assert hash_directory(moved) == before
    (moved / "plan.json").write_text("[]")
    changed = hash_directory(moved)
    assert changed != before
    (moved / "plan.json").rename(moved / "plan2.json")
    assert hash_directory(moved) not in (before, changed)


def test_the_order_of_keys_does_not_change_the_hash_of_json() -> None:
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json([1, 2]) != hash_json([2, 1])
