"""A remote store is a folder here, read and written through ZenML's file systems like any other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from zenml.artifact_stores import LocalArtifactStore, LocalArtifactStoreConfig

from adapruner.errors import UserError
from adapruner.hashing import hash_directory
from steps.zenml_support import transfer, workspace
from steps.zenml_support.materializer import (
    DirectoryMaterializer,
    WithoutWeights,
    content_hash,
    whole,
)
from steps.zenml_support.transfer import Traffic, download
from tests.steps.zenml_support.stores import store_in

WEIGHTS = "checkpoint/model.safetensors"


class _Remote(LocalArtifactStoreConfig):
    @property
    def is_local(self) -> bool:
        return False


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalArtifactStore:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(workspace, "_scratch", lambda: tmp_path / "scratch")
    monkeypatch.setenv(workspace.CACHE, str(tmp_path / "cache"))
    return store_in(tmp_path / "store", _Remote)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    path = tmp_path / "stage"
    (path / "checkpoint").mkdir(parents=True)
    (path / "recovery.json").write_text("{}")
    (path / "checkpoint" / "config.json").write_text('{"model_type": "llama"}')
    (path / WEIGHTS).write_bytes(b"weights" * 1000)
    (path / "timing.json").write_text('{"seconds": 1.0}')
    return path


@pytest.fixture
def stored(store: LocalArtifactStore, stage: Path) -> DirectoryMaterializer:
    materializer = DirectoryMaterializer(f"{store.path}/finetune/finetuned/run/id", store)
    Path(materializer.uri).mkdir(parents=True)
    materializer.save(stage)
    return materializer


def names(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


def blobs(cache: Path) -> list[Path]:
    return [path for path in cache.glob("??/*") if len(path.name) == 64]


def test_what_was_stored_is_loaded(stored: DirectoryMaterializer, stage: Path) -> None:
    loaded = stored.load(Path)
    assert hash_directory(loaded) == hash_directory(stage) == stored.compute_content_hash(stage)
    assert (loaded / WEIGHTS).read_bytes() == (stage / WEIGHTS).read_bytes()


def test_the_content_hash_is_that_of_changed_files(
    stored: DirectoryMaterializer, stage: Path
) -> None:
    (stage / "recovery.json").write_text("[ ]")
    assert stored.compute_content_hash(stage) == hash_directory(stage)


def test_a_step_without_weights_gets_them_on_demand(
    stored: DirectoryMaterializer, stage: Path
) -> None:
    loaded = stored.load(WithoutWeights)
    assert names(loaded) == names(stage) - {WEIGHTS}
    assert content_hash(loaded, "checkpoint") == hash_directory(stage / "checkpoint")
    assert content_hash(loaded) == hash_directory(stage)
    assert names(whole(loaded)) == names(stage)
    assert whole(loaded) == loaded


def test_hashes_of_a_directory_that_no_store_holds_are_computed(stage: Path) -> None:
    assert content_hash(stage, "checkpoint") == hash_directory(stage / "checkpoint")
    assert whole(stage) == stage


def test_nothing_is_moved_twice(
    stored: DirectoryMaterializer, stage: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    stored.load(Path)
    assert "0.0 MB moved, 0.0 MB cached" in capfd.readouterr().err
    for blob in blobs(cache):
        blob.unlink()
    hashes = {WEIGHTS: content_of(stage / WEIGHTS)}
    first = download(f"{stored.uri}/data", hashes, tmp_path / "first", cache)
    second = download(f"{stored.uri}/data", hashes, tmp_path / "second", cache)
    assert first == Traffic(moved=7000, files=1)
    assert second == Traffic(cached=7000, files=1)
    assert (tmp_path / "first" / WEIGHTS).samefile(tmp_path / "second" / WEIGHTS)


def content_of(file: Path) -> str:
    return transfer.hash_file(file)


def test_a_damaged_file_of_the_store_is_refused(
    stored: DirectoryMaterializer, tmp_path: Path
) -> None:
    Path(stored.uri, "data", WEIGHTS).write_bytes(b"WEIGHTS" * 1000)
    for blob in blobs(tmp_path / "cache"):
        blob.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors' is not the file that was stored"):
        stored.load(Path)
    assert not any(p.read_bytes() == b"WEIGHTS" * 1000 for p in blobs(tmp_path / "cache"))


def test_a_damaged_file_of_the_cache_is_fetched_again(
    stored: DirectoryMaterializer, stage: Path, tmp_path: Path
) -> None:
    (blob,) = (b for b in blobs(tmp_path / "cache") if b.stat().st_size == 7000)
    blob.unlink()
    blob.write_bytes(b"half")
    assert (stored.load(Path) / WEIGHTS).read_bytes() == (stage / WEIGHTS).read_bytes()


def test_the_cache_is_bounded_and_loaded_directories_stay(
    stored: DirectoryMaterializer, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = content_of(stage / WEIGHTS)
    os.utime(tmp_path / "cache" / weights[:2] / weights, (1, 1))
    monkeypatch.setenv(transfer.CACHE_GB, "0.000001")
    loaded = stored.load(Path)
    assert names(loaded) == names(stage)
    assert sum(blob.stat().st_size for blob in blobs(tmp_path / "cache")) <= 1000
    for text in ("much", "-1", "inf", "nan"):
        monkeypatch.setenv(transfer.CACHE_GB, text)
        with pytest.raises(UserError, match="ADAPRUNER_CACHE_GB is"):
            stored.load(Path)


FETCH = """
import sys
from pathlib import Path
from steps.zenml_support.transfer import download
uri, name, digest, target, cache = sys.argv[1:]
print(download(uri, {name: digest}, Path(target), Path(cache)).moved)
"""


def test_processes_of_a_node_fetch_a_file_once(
    stored: DirectoryMaterializer, stage: Path, tmp_path: Path
) -> None:
    digest, cache = content_of(stage / WEIGHTS), tmp_path / "shared"
    moved: list[int] = []

    def fetch(number: int) -> None:
        target = str(tmp_path / f"out{number}")
        arguments = (f"{stored.uri}/data", WEIGHTS, digest, target, str(cache))
        result = subprocess.run(
            [sys.executable, "-c", FETCH, *arguments], capture_output=True, text=True, check=True
        )
        moved.append(int(result.stdout))

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(moved) == [0, 0, 7000]
