from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.schedules import crontab
from pipelines.schedules.timetable import Timetable
from tests.pipelines.schedules.users import AWKWARD, CRONTAB, scheduled


def run_by_cron(line: str, folder: Path) -> str:
    """The output of the command of a crontab line, run as cron runs it."""
    command = line.split(maxsplit=5)[5].replace("\\%", "\0")
    assert "%" not in command
    out = folder / "out"
    (folder / "bin" / "logger").write_text(f"#!/bin/sh\ncat > {shlex.quote(str(out))}\n")
    (folder / "bin" / "logger").chmod(0o755)
    subprocess.run(["/bin/sh", "-c", command.replace("\0", "%")], check=True, cwd="/")
    return out.read_text()


def test_a_crontab_line_runs_the_command_with_its_environment_once_at_a_time(home: Path) -> None:
    folder = home / AWKWARD
    folder.mkdir()
    (folder / "my.env").write_text("NAME='a value'\n")
    (folder / "my.env").chmod(0o600)
    code = "import os, sys; print([os.getcwd(), os.environ['NAME'], *sys.argv[1:]])"
    command = (sys.executable, "-c", code.replace("'", '"'), AWKWARD)
    schedule = scheduled(folder, command=command, environment=folder / "my.env")
    crontab.install(schedule)
    (line,) = [x for x in (home / "crontab").read_text().splitlines() if x.startswith("*/15")]
    assert run_by_cron(line, home) == f"{[str(folder), 'a value', AWKWARD]}\n"
    lock = folder / "adapruner-nightly.lock"
    with subprocess.Popen(["flock", lock, "sh", "-c", "echo; cat"], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert run_by_cron(line, home) == ""
        other.communicate()


def test_other_lines_of_the_crontab_are_kept(home: Path) -> None:
    others = "MAILTO=me\n# adapruner schedule: mine\n5 4 * * * echo 50\\% # no newline at the end"
    (home / "crontab").write_text(others)
    crontab.install(scheduled(home))
    crontab.install(scheduled(home, name="second"))
    crontab.install(scheduled(home, when=Timetable("5 * * * *")))
    text = (home / "crontab").read_text()
    assert text.startswith(others + "\n")
    rows = {row.name: row.when for row in crontab.installed()}
    assert rows == {"nightly": "5 * * * * UTC", "second": "*/15 * * * * UTC"}
    assert text.count("# adapruner schedule nightly") == 1
    assert crontab.remove("nightly")
    assert crontab.remove("second")
    assert not crontab.remove("second")
    assert (home / "crontab").read_text() == others + "\n"


def test_an_edited_block_is_left_alone(home: Path) -> None:
    crontab.install(scheduled(home))
    edited = (home / "crontab").read_text().replace(crontab.END + "\n", "1 1 * * * mine\n")
    (home / "crontab").write_text(edited)
    assert not crontab.remove("nightly")
    assert (home / "crontab").read_text() == edited


def test_a_cron_with_local_times_gets_only_times_that_are_the_same_in_utc(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert "*/15 * * * *" in crontab.block(scheduled(home))
        with pytest.raises(UserError, match="this machine's time zone"):
            crontab.block(scheduled(home, when=Timetable("0 3 * * *")))
        cronie = home / "bin" / "crontab"
        cronie.write_text(CRONTAB.replace("usage error", "cronie 1.7").replace("exit 1 ;;", ";;"))
        assert "\nCRON_TZ=UTC\n0 3 " in crontab.block(scheduled(home, when=Timetable("0 3 * * *")))
    finally:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()


@pytest.mark.parametrize("word", ["line\nbreak", "back\\slash", "x" * 1000, "\x1b[1m"])
def test_what_cron_would_change_is_refused(home: Path, word: str) -> None:
    with pytest.raises(UserError, match=r"rename it|shorter paths"):
        crontab.install(scheduled(home, command=("true", word)))
    assert not (home / "crontab").exists()


@pytest.mark.skipif(not shutil.which("crontab"), reason="crontab (Debian: cron) is not installed")
def test_the_real_crontab_accepts_the_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    if before.stdout.strip():
        pytest.skip("this user has a crontab, which a test must not change")
    monkeypatch.setenv("TZ", "UTC")
    crontab.install(scheduled(tmp_path))
    try:
        assert [row.name for row in crontab.installed()] == ["nightly"]
        assert crontab.remove("nightly")
        assert crontab.installed() == []
    finally:
        subprocess.run(["crontab", "-r"], capture_output=True, check=False)


def test_a_block_of_an_earlier_release_is_replaced(home: Path) -> None:
    begin = "# adapruner schedule nightly (in UTC; `adapruner schedule remove` takes it away)"
    (home / "crontab").write_text(f"{begin}\n0 1 * * * true\n{crontab.END}\n")
    crontab.install(scheduled(home))
    assert [row.when for row in crontab.installed()] == ["*/15 * * * * UTC"]
