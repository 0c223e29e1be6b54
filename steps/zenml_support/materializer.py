"""How the directory of a stage is stored in an artifact store: unchanged, file by file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.utils import io_utils

from adapruner.files import file_manifest, link_or_copy
from adapruner.hashing import hash_directory

DATA = "data"
MANIFEST = "files.json"
FAILED = "failed.json"
"""The file in which a stage records the parts of its result that failed."""


def is_intact(uri: str, content_hash: str | None) -> bool:
    """Whether the files of the artifact at `uri` are the ones that were stored.

    In a local store the sizes and modification times of all files are compared, and contents are
    hashed only where these differ. In a remote store only the manifest's existence is checked.
    """
    recorded = f"{uri}/{MANIFEST}"
    if "://" in uri:
        return bool(fileio.exists(recorded))
    data = Path(uri, DATA)
    if not data.is_dir() or not Path(recorded).is_file():
        return False
    if file_manifest(data) == _read_manifest(uri):
        return True
    return hash_directory(data) == content_hash


def is_complete(uri: str) -> bool:
    """Whether no part of the artifact at `uri` is recorded as failed."""
    return FAILED not in _read_manifest(uri)


def _read_manifest(uri: str) -> dict[str, list[int]]:
    with fileio.open(f"{uri}/{MANIFEST}") as file:
        manifest: dict[str, list[int]] = json.loads(file.read())
    return manifest


class DirectoryMaterializer(BaseMaterializer):
    """Directories: hard links into a local store and no copy out of it; copies for a remote one.

    Layout below the artifact's URI: `data/` with the files, and `files.json`, written last, with
    the size in bytes and the modification time in ns of each. A step that loads an artifact from a
    local store gets the store's own files and must not write to them.
    """

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Path,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    SKIP_REGISTRATION: ClassVar[bool] = True

    def save(self, data: Path) -> None:
        target = f"{self.uri}/{DATA}"
        if self.artifact_store.config.is_local:
            shutil.copytree(data, target, copy_function=link_or_copy)
        else:
            io_utils.copy_dir(str(data), target)
        with fileio.open(f"{self.uri}/{MANIFEST}", "w") as file:
            file.write(json.dumps(file_manifest(data), sort_keys=True))

    def load(self, data_type: type[Any]) -> Path:
        source = f"{self.uri}/{DATA}"
        if self.artifact_store.config.is_local:
            return Path(source)
        with self.get_temporary_directory(delete_at_exit=False) as directory:
            io_utils.copy_dir(source, directory, overwrite=True)
            return Path(directory)

    def save_visualizations(self, data: Path) -> dict[str, VisualizationType]:
        """The HTML files at the top of the directory, which ZenML's dashboard shows."""
        pages = sorted(path.name for path in data.glob("*.html"))
        return {f"{self.uri}/{DATA}/{name}": VisualizationType.HTML for name in pages}

    def compute_content_hash(self, data: Path) -> str:
        return hash_directory(data)
