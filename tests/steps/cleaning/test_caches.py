from __future__ import annotations

import os
import time
from pathlib import Path

import optuna
import pytest

from steps.cleaning import caches, leftovers
from steps.zenml_support.workspace import CACHE

LATER = time.time() + 3600


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ADAPRUNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    return tmp_path / "home"


def write(file: Path, days: float = 0.0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    then = time.time() - days * 86400
    for path in (file, file.parent):
        os.utime(path, (then, then))
    return file


def test_studies_go_by_their_last_trial(home: Path) -> None:
    assert caches.old_studies(LATER) == []
    home.mkdir(exist_ok=True)
    url = f"sqlite:///{home / 'studies.db'}"
    study = optuna.create_study(storage=url, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    write(home / "studies.db.s.lock")
    assert caches.old_studies(time.time() - 3600) == []
    (removal,) = caches.old_studies(LATER)
    removal.remove()
    assert optuna.get_all_study_names(url) == []
    assert not (home / "studies.db.s.lock").exists()


def test_downloads_and_cached_files_go_by_their_last_use(home: Path) -> None:
    old = write(home / "models" / "m" / "1-old" / "config.json", days=9).parent
    write(home / "models" / "m" / "2-new" / "config.json", days=1)
    text = write(home / "fetched" / "key" / "a.txt", days=9).parent
    cache = home.parent / "cache"
    blob = write(cache / "ab" / ("a" * 64), days=9)
    write(cache / "ab" / ("b" * 64), days=1)
    before = time.time() - 8 * 86400
    assert [r.paths for r in caches.old_downloads(before)] == [(text,), (old,)]
    assert [r.paths for r in caches.old_blobs(before)] == [(blob,)]


def test_incomplete_copies_are_leftovers_once_they_no_longer_grow(home: Path) -> None:
    cache = home.parent / "cache"
    write(cache / "ab" / ("a" * 64 + ".growing"))
    partial = write(cache / "ab" / ("a" * 64 + ".left"), days=1)
    fetch = write(home / "fetched" / "key" / ".fetch-1" / "a", days=9).parent
    work = write(home.parent / "tmp" / ".adapruner-work" / "host~1" / "a", days=9).parent
    write(home / "models" / "m" / ".fetch-2" / "a", days=1)
    found = leftovers.leftovers([], foreign_s=8 * 86400)
    assert {path for removal in found for path in removal.paths} == {partial, fetch, work}
