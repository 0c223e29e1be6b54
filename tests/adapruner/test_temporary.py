"""Temporary folders of processes that run, were killed, or are on other hosts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapruner import temporary
from adapruner.locks import Holder, holder_of
from adapruner.temporary import FORMER, LOCK_FILE, is_abandoned

ROOT = Path(__file__).parents[2]
DAY = 86400.0
CLAIMS = """
import sys, time
from pathlib import Path
from adapruner import temporary
folder, _ = getattr(temporary, sys.argv[1])(Path(sys.argv[2]), *sys.argv[3:])
print(folder, flush=True)
time.sleep(60)
"""
Claim = Callable[..., "tuple[Path, subprocess.Popen[str]]"]


@pytest.fixture
def claim() -> Iterator[Claim]:
    """A folder that another process claims, and that process."""
    processes = []

    def start(*arguments: object) -> tuple[Path, subprocess.Popen[str]]:
        command = [sys.executable, "-c", CLAIMS, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return Path(process.stdout.readline().strip()), process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def set_age(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def set_host(folder: Path, host: str) -> None:
    holder = holder_of(folder / LOCK_FILE)
    assert holder is not None
    moved = Holder(host=host, pid=holder.pid, since=holder.since)
    (folder / LOCK_FILE).write_text(moved.model_dump_json())


def test_a_folder_is_abandoned_once_its_process_was_killed(claim: Claim, tmp_path: Path) -> None:
    folder, process = claim("claimed_folder", tmp_path, "x-")
    set_age(folder, days=400)
    assert not is_abandoned(folder, foreign_s=0)
    end(process)
    assert is_abandoned(folder)


def test_a_process_id_that_is_used_again_does_not_keep_a_folder(
    claim: Claim, tmp_path: Path
) -> None:
    folder, process = claim("claimed_folder", tmp_path, "x-")
    end(process)
    holder = holder_of(folder / LOCK_FILE)
    assert holder is not None
    again = Holder(host=holder.host, pid=os.getpid(), since=holder.since)
    (folder / LOCK_FILE).write_text(again.model_dump_json())
    assert is_abandoned(folder)


def test_a_folder_of_another_host_is_abandoned_by_age_unless_its_lock_is_held(
    claim: Claim, tmp_path: Path
) -> None:
    folder, process = claim("claimed_folder", tmp_path, "x-")
    set_host(folder, "elsewhere")
    set_age(folder, days=8)
    assert not is_abandoned(folder)
    end(process)
    assert is_abandoned(folder)
    set_age(folder, days=6)
    assert not is_abandoned(folder)
    assert is_abandoned(folder, foreign_s=5 * DAY)


def test_a_folder_without_a_lock_file_may_be_about_to_get_one(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    assert not is_abandoned(folder, foreign_s=0)
    set_age(folder, days=8)
    assert is_abandoned(folder)
    assert not is_abandoned(tmp_path / "gone")


def test_a_replacement_removes_those_that_were_killed_and_no_other_folder(
    claim: Claim, tmp_path: Path
) -> None:
    target = tmp_path / "run"
    left, killed = claim("claim_replacement", target)
    used, _ = claim("claim_replacement", target)
    end(killed)
    foreign = tmp_path / ".run-settings"
    foreign.mkdir()
    set_age(foreign, days=400)
    folder, lock = temporary.claim_replacement(target)
    lock.release()
    assert not left.exists()
    assert used.is_dir() and foreign.is_dir() and folder.is_dir()


def test_what_a_killed_process_moved_away_comes_back(claim: Claim, tmp_path: Path) -> None:
    target = tmp_path / "my-run"
    left, killed = claim("claim_replacement", target)
    (left / FORMER).mkdir()
    (left / FORMER / "report.json").write_text("{}")
    end(killed)
    temporary.claim_replacement(target)[1].release()
    assert (target / "report.json").read_text() == "{}"
