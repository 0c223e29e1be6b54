"""Schedules with real files, a home of their own, and the system's programs where they are."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from adapruner.errors import UserError
from pipelines.cli.main import main
from pipelines.schedules import crontab, plan, systemd
from pipelines.schedules.timetable import Timetable

ROOT = Path(__file__).parents[2]
QUARTER = Timetable("*/15 * * * *")
# What a name may hold that shells, cron or systemd read as something else.
AWKWARD = "a b'c\"d$HOME`e`%h;f&|*é"
# A crontab of one user, kept in a file: what the real one does with -l, -, and -V.
CRONTAB = """#!/bin/sh
case "$1" in
-l) cat "$HOME/crontab" 2>/dev/null || { echo "no crontab for you" >&2; exit 1; } ;;
-) cat > "$HOME/crontab" ;;
*) echo "usage error" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home where systemd does not run and the crontab is a file."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "crontab"
    program.write_text(CRONTAB)
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path


def planned(folder: Path, **changed: object) -> plan.Plan:
    values: dict[str, object] = {
        "name": "nightly",
        "when": QUARTER,
        "folder": folder,
        "home": folder,
        "command": (sys.executable, "-c", "import sys; print(sys.argv[1:])", AWKWARD),
    }
    return plan.Plan(**{**values, **changed})  # type: ignore[arg-type]


def adapruner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", "schedule", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_the_units_and_reads_awkward_names_as_they_are(home: Path) -> None:
    folder = home / AWKWARD
    folder.mkdir()
    (folder / "my.env").touch(mode=0o600)
    made = planned(folder, home=home, environment=folder / "my.env")
    assert "systemctl --user" in systemd.install(made)
    units = [str(path) for path in systemd.files(made)]
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--user", *units], capture_output=True, text=True, check=False
    )
    if "Failed to initialize manager" in ended.stderr:
        pytest.skip("systemd-analyze verify does not run here")
    assert (ended.returncode, ended.stderr) == (0, "")
    broken = Path(units[0]).read_text().replace("ExecStart=", "ExecStart=relative/")
    Path(units[0]).write_text(broken)
    ended = subprocess.run(["systemd-analyze", "verify", "--user", *units], check=False)
    assert ended.returncode != 0, "verify would not have seen a mistake"


def test_what_systemd_reads_is_what_was_meant() -> None:
    assert systemd.quoted(["/bin/x", 'a"b\\c$d%e']) == '"/bin/x" "a\\"b\\\\c$$d%%e"'


def test_a_timer_is_written_again_listed_and_removed(home: Path) -> None:
    systemd.install(planned(home))
    before = {path: path.read_text() for path in systemd.folder().iterdir()}
    systemd.install(planned(home))
    assert {path: path.read_text() for path in systemd.folder().iterdir()} == before
    systemd.install(planned(home, when=Timetable("0 3 * * *")))
    (row,) = systemd.installed()
    assert (row.name, row.when) == ("nightly", "*-*-* 3:0:00 UTC")
    assert systemd.remove("nightly")
    assert not list(systemd.folder().iterdir())
    assert not systemd.remove("nightly")


def test_a_unit_of_somebody_else_is_left_alone(home: Path) -> None:
    foreign = systemd.folder() / "adapruner-nightly.timer"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Timer]\nOnCalendar=daily\n")
    for act in (lambda: systemd.install(planned(home)), lambda: systemd.remove("nightly")):
        with pytest.raises(UserError, match="was not written by adapruner"):
            act()
    assert foreign.read_text().endswith("daily\n")
    assert systemd.installed() == []


def as_cron_runs(line: str, folder: Path) -> str:
    """What cron hands to /bin/sh of a line, and what comes out of that."""
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
    (folder / "my.env").write_text("GIVEN='a value'\n")
    (folder / "my.env").chmod(0o600)
    code = "import os, sys; print([os.getcwd(), os.environ['GIVEN'], *sys.argv[1:]])"
    command = (sys.executable, "-c", code.replace("'", '"'), AWKWARD)
    made = planned(folder, command=command, environment=folder / "my.env")
    crontab.install(made)
    (line,) = [x for x in (home / "crontab").read_text().splitlines() if x.startswith("*/15")]
    assert as_cron_runs(line, home) == f"{[str(folder), 'a value', AWKWARD]}\n"
    lock = folder / "adapruner-nightly.lock"
    with subprocess.Popen(["flock", lock, "sh", "-c", "echo; cat"], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert as_cron_runs(line, home) == ""
        other.communicate()


def test_the_rest_of_a_crontab_stays_as_it_is(home: Path) -> None:
    others = "MAILTO=me\n# adapruner schedule: mine\n5 4 * * * echo 50\\% # no newline at the end"
    (home / "crontab").write_text(others)
    crontab.install(planned(home))
    crontab.install(planned(home, name="second"))
    crontab.install(planned(home, when=Timetable("5 * * * *")))
    text = (home / "crontab").read_text()
    assert text.startswith(others + "\n")
    rows = {row.name: row.when for row in crontab.installed()}
    assert rows == {"nightly": "5 * * * * UTC", "second": "*/15 * * * * UTC"}
    assert text.count("# adapruner schedule nightly") == 1
    assert crontab.remove("nightly")
    assert crontab.remove("second")
    assert not crontab.remove("second")
    assert (home / "crontab").read_text() == others + "\n"


def test_a_block_that_somebody_edited_takes_nothing_of_theirs_along(home: Path) -> None:
    crontab.install(planned(home))
    edited = (home / "crontab").read_text().replace(crontab.END + "\n", "1 1 * * * mine\n")
    (home / "crontab").write_text(edited)
    assert not crontab.remove("nightly")
    assert (home / "crontab").read_text() == edited


def test_a_cron_that_reads_local_times_gets_only_times_that_are_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert "*/15 * * * *" in crontab.block(planned(home))
        with pytest.raises(UserError, match="this machine's time zone"):
            crontab.block(planned(home, when=Timetable("0 3 * * *")))
        cronie = home / "bin" / "crontab"
        cronie.write_text(CRONTAB.replace("usage error", "cronie 1.7").replace("exit 1 ;;", ";;"))
        assert "\nCRON_TZ=UTC\n0 3 " in crontab.block(planned(home, when=Timetable("0 3 * * *")))
    finally:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()


@pytest.mark.parametrize("word", ["line\nbreak", "back\\slash", "x" * 1000, "\x1b[1m"])
def test_what_cron_would_not_keep_is_refused(home: Path, word: str) -> None:
    with pytest.raises(UserError, match=r"rename it|shorter paths"):
        crontab.install(planned(home, command=("true", word)))
    assert not (home / "crontab").exists()


@pytest.mark.skipif(not shutil.which("crontab"), reason="crontab (Debian: cron) is not installed")
def test_the_real_crontab_takes_the_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    if before.stdout.strip():
        pytest.skip("this user has a crontab, which a test must not touch")
    monkeypatch.setenv("TZ", "UTC")
    crontab.install(planned(tmp_path))
    try:
        assert [row.name for row in crontab.installed()] == ["nightly"]
        assert crontab.remove("nightly")
        assert crontab.installed() == []
    finally:
        subprocess.run(["crontab", "-r"], capture_output=True, check=False)


@pytest.mark.parametrize("scheduler", ["systemd", "crontab"])
def test_the_command_shows_writes_lists_and_removes(home: Path, scheduler: str) -> None:
    (home / "My_Models.yaml").write_text("sources: []\n")
    (home / "run").mkdir()
    given = ["install", "-c", "../My_Models.yaml", "--every", "15m", "--with", scheduler]
    dry = adapruner(*given, "--dry-run", cwd=home / "run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.endswith("Nothing was written.\n")
    assert not (home / "config").exists()
    assert not (home / "crontab").exists()
    assert not list((home / "run").iterdir())
    shown = adapruner(*given, cwd=home / "run").stdout
    assert dry.stdout.removesuffix("Nothing was written.\n") in shown
    row = adapruner("list", cwd=home).stdout.split("\t")
    assert row[:2] == ["my-models", scheduler]
    assert "recompress" in row[3]
    assert "Removed 'my-models'" in adapruner("remove", "-c", "My_Models.yaml", cwd=home).stdout
    assert adapruner("list", cwd=home).stdout == ""


def test_mistakes_are_one_line_and_write_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "passes.yaml").write_text("sources: []\n")
    (home / "open.env").touch(mode=0o644)
    (home / "open.env").chmod(0o644)
    file = ["-c", "passes.yaml"]
    for arguments, message in (
        (["install", "-c", "none.yaml", "--every", "15m"], "no such file"),
        (["install", *file], "give one of --every"),
        (["install", *file, "--every", "7m"], "divide an hour"),
        (["install", *file, "--every", "5m", "--name", "../x"], "lower-case letters"),
        (["install", *file, "--every", "5m", "--env-file", "open.env"], "chmod 600"),
        (["remove"], "give -c FILE or --name"),
        (["manifest", *file, "--every", "5m", "--image", "x;y"], "wanted NAME:TAG"),
    ):
        ended = CliRunner().invoke(main, ["schedule", *arguments])
        assert ended.exit_code == 2, arguments
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not (home / "config").exists()
    assert not (home / "crontab").exists()


def test_the_cronjob_runs_one_pass_at_a_time_in_utc_without_rights_or_secrets(home: Path) -> None:
    text = "# comment\nsources: [models:/mine]\nodd: 'é: |'\n"
    (home / "passes.yaml").write_text(text)
    ended = adapruner(
        *("manifest", "-c", "passes.yaml", "--every", "15m", "--image", "r.example/a@sha256:0a"),
        *("--secret", "mlflow-login", "--memory", "8Gi", "--namespace", "models"),
        cwd=home,
    )
    assert ended.returncode == 0, ended.stderr
    config, volume, job = yaml.safe_load_all(ended.stdout)
    assert config["data"] == {"recompress.yaml": text}
    names = {x["metadata"]["name"] for x in (config, volume, job)}
    assert names == {"adapruner-passes"}
    assert {x["metadata"]["namespace"] for x in (config, volume, job)} == {"models"}
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("*/15 * * * *", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] > 10
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    (container,) = pod["containers"]
    assert container["args"][:2] == ["recompress", "-c"]
    assert container["envFrom"] == [{"secretRef": {"name": "mlflow-login"}}]
    assert container["env"] == [{"name": "HOME", "value": "/data"}]
    assert container["resources"]["limits"] == {"memory": "8Gi"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {row["name"] for row in pod["volumes"]}
    assert container["args"][2] == f"{mounted['config']}/recompress.yaml"
