from __future__ import annotations

from pathlib import Path

from steps.cleaning.removal import Removal, freed_bytes


def test_a_file_with_a_hard_link_elsewhere_frees_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "weights").write_bytes(b"x" * 100)
    (tmp_path / "a" / "own").write_bytes(b"x" * 7)
    (tmp_path / "b" / "weights").hardlink_to(tmp_path / "a" / "weights")
    both = (tmp_path / "a", tmp_path / "b")
    assert freed_bytes(both) == 107
    assert [freed_bytes([path]) for path in both] == [7, 0]
    (tmp_path / "kept" / "weights").hardlink_to(tmp_path / "a" / "weights")
    assert freed_bytes(both) == 7
    Removal("x", 0.0, both).remove()
    assert (tmp_path / "kept" / "weights").read_bytes() == b"x" * 100
    assert not (tmp_path / "a").exists()


def test_what_is_gone_already_is_no_error(tmp_path: Path) -> None:
    gone = (tmp_path / "gone",)
    assert freed_bytes(gone) == 0
    Removal("x", 0.0, gone).remove()
