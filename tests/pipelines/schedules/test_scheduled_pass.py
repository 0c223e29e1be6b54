from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.schedules.scheduled_pass import check_environment, check_file, schedule_name


def test_the_default_name_is_made_from_the_name_of_the_file() -> None:
    assert schedule_name(Path("a/My_Models.v2.yaml"), None) == "my-models-v2"
    assert schedule_name(Path("a.yaml"), "nightly") == "nightly"


@pytest.mark.parametrize("name", ["", "../x", "-a", "a-", "A", "a b", "x" * 41, "\u0663"])
def test_a_name_that_no_scheduler_accepts_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        schedule_name(Path("a.yaml"), name)


def test_an_environment_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    with pytest.raises(UserError, match="can't be read"):
        check_environment(file)
    file.touch(mode=0o600)
    assert check_environment(file) == file
    file.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        check_environment(file)


def test_a_missing_recompress_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        check_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "PASSWORD=pa$word&x;y", "A=b c", "A=$(id)", "A=`id`", 'A="$B"', "A='b\\c'", "export A=b",
        "A = b", "; comment", "A='b'c", "A=b#c'", "id",
    ],
)  # fmt: skip
def test_a_line_that_schedulers_read_differently_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text(f"# a comment\n\n{line}\n")
    file.chmod(0o600)
    with pytest.raises(UserError, match=r"line 3: schedulers read it differently; write NAME="):
        check_environment(file)


def test_a_quoted_value_means_the_same_to_the_shell(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("A='pa$word&x;y'\nB=http://u:p@host:1/x,y%20\nC=\"two words\"\n")
    file.chmod(0o600)
    command = f'set -a && . {check_environment(file)} && printf "%s|" "$A" "$B" "$C"'
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert result.stdout == "pa$word&x;y|http://u:p@host:1/x,y%20|two words|"
