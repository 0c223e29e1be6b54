from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.cli.commands.results import run


@pytest.mark.parametrize("age", ["30", "5w", "-1d", "367d", "1.5d", ""])
def test_a_bad_age_is_one_line_and_touches_nothing(age: str, tmp_path: Path) -> None:
    result = run("clean", "--home", tmp_path / "home", "--older-than", age)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: --older-than {age}: expected an age")
    assert not (tmp_path / "home").exists()


def test_a_home_that_does_not_exist_is_one_line_and_is_not_created(tmp_path: Path) -> None:
    result = run("clean", "--home", tmp_path / "home")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "there is no home folder" in line and "--home" in line
    assert not (tmp_path / "home").exists()
