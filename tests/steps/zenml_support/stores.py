"""Artifact stores in a folder of the test."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from zenml.artifact_stores import LocalArtifactStore, LocalArtifactStoreConfig
from zenml.enums import StackComponentType


def store_in(path: Path, config: type[LocalArtifactStoreConfig]) -> LocalArtifactStore:
    """A store in the new folder `path`."""
    path.mkdir()
    return LocalArtifactStore(
        name="store",
        id=uuid4(),
        config=config(path=str(path)),
        flavor="local",
        type=StackComponentType.ARTIFACT_STORE,
        user=uuid4(),
        created=datetime.now(UTC),
        updated=datetime.now(UTC),
    )
