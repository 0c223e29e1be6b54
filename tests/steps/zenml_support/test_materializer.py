from __future__ import annotations

import os
from pathlib import Path

import pytest
from zenml.artifact_stores import LocalArtifactStore, LocalArtifactStoreConfig
from zenml.enums import VisualizationType

from steps.zenml_support.materializer import DirectoryMaterializer, is_complete, is_intact
from steps.zenml_support.workspace import Timing
from tests.steps.zenml_support.stores import store_in

WEIGHTS = "checkpoint/model.safetensors"


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return store_in(tmp_path / "store", LocalArtifactStoreConfig)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "stage"
    (path / "checkpoint").mkdir(parents=True)
    (path / "evaluation.json").write_text("{}")
    (path / WEIGHTS).write_bytes(b"weights")
    Timing(seconds=1.0).write(path)
    return path


def stored(
    store: LocalArtifactStore, directory: Path, name: str = "a"
) -> tuple[DirectoryMaterializer, str]:
    """The materializer that has stored the directory, and the content hash."""
    materializer = DirectoryMaterializer(f"{store.path}/{name}", store)
    Path(materializer.uri).mkdir()
    materializer.save(directory)
    return materializer, materializer.compute_content_hash(directory)


def test_files_are_hard_links_in_a_local_store_and_loaded_without_a_copy(
    store: LocalArtifactStore, directory: Path
) -> None:
    materializer, _ = stored(store, directory)
    loaded = materializer.load(Path)
    assert loaded.is_relative_to(store.path)
    assert (loaded / WEIGHTS).samefile(directory / WEIGHTS)


def test_the_content_hash_depends_on_the_files_but_not_on_the_time_they_took(
    store: LocalArtifactStore, directory: Path
) -> None:
    _, before = stored(store, directory)
    Timing(seconds=2.0).write(directory)
    materializer = DirectoryMaterializer("unused", store)
    assert materializer.compute_content_hash(directory) == before
    (directory / "evaluation.json").write_text("[]")
    assert materializer.compute_content_hash(directory) != before


def test_missing_and_altered_files_are_noticed(store: LocalArtifactStore, directory: Path) -> None:
    materializer, content_hash = stored(store, directory)
    weights = materializer.load(Path) / WEIGHTS
    assert is_intact(materializer.uri, content_hash)

    os.utime(weights, (0, 0))
    assert is_intact(materializer.uri, content_hash), "another time, the same content"
    weights.write_bytes(b"WEIGHTS")
    assert not is_intact(materializer.uri, content_hash), "the same size, another content"
    weights.write_bytes(b"weights")
    assert is_intact(materializer.uri, content_hash)
    weights.unlink()
    assert not is_intact(materializer.uri, content_hash)
    assert not is_intact(f"{store.path}/none", content_hash)


def test_a_result_with_a_failed_part_is_intact_but_not_complete(
    store: LocalArtifactStore, directory: Path
) -> None:
    from adapruner.evaluation.quality import FAILED

    materializer, _ = stored(store, directory)
    assert is_complete(materializer.uri)
    (directory / FAILED).write_text('{"piqa": "no space left"}')
    other, content_hash = stored(store, directory, "b")
    assert is_intact(other.uri, content_hash)
    assert not is_complete(other.uri)


def test_html_files_are_visualizations_for_the_dashboard(
    store: LocalArtifactStore, directory: Path
) -> None:
    (directory / "report.html").write_text("<p>a page</p>")
    materializer, _ = stored(store, directory)
    ((uri, kind),) = materializer.save_visualizations(directory).items()
    assert kind == VisualizationType.HTML
    assert Path(uri).read_text() == "<p>a page</p>"
    (directory / "report.html").unlink()
    assert materializer.save_visualizations(directory) == {}
