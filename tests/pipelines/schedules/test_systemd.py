from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from adapruner.errors import UserError
from pipelines.schedules import systemd
from pipelines.schedules.timetable import Timetable
from tests.pipelines.schedules.users import AWKWARD, scheduled


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_units_are_valid_for_systemd_also_with_awkward_names(home: Path) -> None:
    folder = home / AWKWARD
    folder.mkdir()
    (folder / "my.env").touch(mode=0o600)
    schedule = scheduled(folder, home=home, environment=folder / "my.env")
    assert "systemctl --user" in systemd.install(schedule)
    units = [str(path) for path in systemd.unit_files(schedule)]
    result = subprocess.run(
        ["systemd-analyze", "verify", "--user", *units], capture_output=True, text=True, check=False
    )
    if "Failed to initialize manager" in result.stderr:
        pytest.skip("systemd-analyze verify does not run here")
    assert (result.returncode, result.stderr) == (0, "")
    broken = Path(units[0]).read_text().replace("ExecStart=", "ExecStart=relative/")
    Path(units[0]).write_text(broken)
    result = subprocess.run(["systemd-analyze", "verify", "--user", *units], check=False)
    assert result.returncode != 0, "systemd-analyze does not detect mistakes here"


def test_arguments_are_quoted_for_systemd() -> None:
    assert systemd.quoted(["/bin/x", 'a"b\\c$d%e']) == '"/bin/x" "a\\"b\\\\c$$d%%e"'


def test_a_timer_is_replaced_listed_and_removed(home: Path) -> None:
    systemd.install(scheduled(home))
    before = {path: path.read_text() for path in systemd.unit_folder().iterdir()}
    systemd.install(scheduled(home))
    assert {path: path.read_text() for path in systemd.unit_folder().iterdir()} == before
    systemd.install(scheduled(home, when=Timetable("0 3 * * *")))
    (row,) = systemd.installed()
    assert (row.name, row.when) == ("nightly", "*-*-* 3:0:00 UTC")
    assert systemd.remove("nightly")
    assert not list(systemd.unit_folder().iterdir())
    assert not systemd.remove("nightly")


def test_a_foreign_unit_is_left_alone(home: Path) -> None:
    foreign = systemd.unit_folder() / "adapruner-nightly.timer"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Timer]\nOnCalendar=daily\n")
    for action in (lambda: systemd.install(scheduled(home)), lambda: systemd.remove("nightly")):
        with pytest.raises(UserError, match="was not written by adapruner"):
            action()
    assert foreign.read_text().endswith("daily\n")
    assert systemd.installed() == []


def test_a_unit_of_an_earlier_release_is_replaced_and_removed(home: Path) -> None:
    (timer, service) = (
        systemd.unit_folder() / f"adapruner-nightly.{k}" for k in ("timer", "service")
    )
    timer.parent.mkdir(parents=True)
    header = (
        "# Written by `adapruner schedule install`; `adapruner schedule remove` takes it away.\n"
    )
    for unit in (timer, service):
        unit.write_text(header)
    systemd.install(scheduled(home))
    assert systemd.remove("nightly")
    assert not list(systemd.unit_folder().iterdir())


@pytest.mark.parametrize("command", [("/bin/$x",), ("/bin/x", "line\nbreak")])
def test_what_systemd_would_change_is_refused(home: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"move it|rename it"):
        systemd.preview(scheduled(home, command=command))
