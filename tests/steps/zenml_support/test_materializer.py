from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from zenml.artifact_stores import LocalArtifactStore, LocalArtifactStoreConfig
from zenml.enums import StackComponentType, VisualizationType

from steps.zenml_support.materializer import DirectoryMaterializer, complete, intact


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    path = tmp_path / "store"
    path.mkdir()
    return LocalArtifactStore(
        name="local",
        id=uuid4(),
        config=LocalArtifactStoreConfig(path=str(path)),
        flavor="local",
        type=StackComponentType.ARTIFACT_STORE,
        user=uuid4(),
        created=datetime.now(UTC),
        updated=datetime.now(UTC),
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "stage"
    (path / "checkpoint").mkdir(parents=True)
    (path / "metrics.json").write_text("{}")
    (path / "timing.json").write_text('{"seconds": 1.0}')
    (path / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    return path


def saved(store: LocalArtifactStore, directory: Path) -> tuple[DirectoryMaterializer, str]:
    materializer = DirectoryMaterializer(f"{store.path}/a", store)
    Path(materializer.uri).mkdir()
    materializer.save(directory)
    return materializer, materializer.compute_content_hash(directory)


def test_files_are_linked_in_and_handed_out_where_they_are(
    store: LocalArtifactStore, directory: Path
) -> None:
    materializer, _ = saved(store, directory)
    loaded = materializer.load(Path)
    assert loaded.is_relative_to(store.path)
    inner = "checkpoint/model.safetensors"
    assert (loaded / inner).samefile(directory / inner)


def test_the_hash_is_of_the_content_not_of_the_time_it_took(
    store: LocalArtifactStore, directory: Path
) -> None:
    _, before = saved(store, directory)
    (directory / "timing.json").write_text('{"seconds": 2.0}')
    materializer = DirectoryMaterializer("unused", store)
    assert materializer.compute_content_hash(directory) == before
    (directory / "metrics.json").write_text("[]")
    assert materializer.compute_content_hash(directory) != before


def test_what_is_gone_or_altered_is_noticed(store: LocalArtifactStore, directory: Path) -> None:
    materializer, content = saved(store, directory)
    weights = materializer.load(Path) / "checkpoint" / "model.safetensors"
    assert intact(materializer.uri, content)

    os.utime(weights, (0, 0))
    assert intact(materializer.uri, content), "touched, but the same"
    weights.write_bytes(b"WEIGHTS")
    assert not intact(materializer.uri, content), "same size, other content"
    weights.write_bytes(b"weights")
    assert intact(materializer.uri, content)
    weights.unlink()
    assert not intact(materializer.uri, content)
    assert not intact(f"{store.path}/none", content)


def test_a_result_with_a_failed_part_is_not_complete(
    store: LocalArtifactStore, directory: Path
) -> None:
    from adapruner.evaluation.quality import FAILED

    materializer, _ = saved(store, directory)
    assert complete(materializer.uri)
    (directory / FAILED).write_text('{"piqa": "no space left"}')
    other = DirectoryMaterializer(f"{store.path}/b", store)
    Path(other.uri).mkdir()
    other.save(directory)
    assert intact(other.uri, other.compute_content_hash(directory))
    assert not complete(other.uri)


def test_pages_are_shown_by_the_dashboard_from_where_they_lie(
    store: LocalArtifactStore, directory: Path
) -> None:
    (directory / "report.html").write_text("<p>a page</p>")
    materializer, _ = saved(store, directory)
    ((uri, kind),) = materializer.save_visualizations(directory).items()
    assert kind == VisualizationType.HTML
    assert Path(uri).read_text() == "<p>a page</p>"
    (directory / "report.html").unlink()
    assert materializer.save_visualizations(directory) == {}
