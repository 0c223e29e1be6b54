"""How a stage's directory is kept in an artifact store: as it is, file by file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.utils import io_utils

from adapruner.hashing import hash_directory

DATA = "data"
MANIFEST = "files.json"
FAILED = "failed.json"
"""A stage that had to go on without a part of its result names that part in a file so called."""


class DirectoryMaterializer(BaseMaterializer):
    """Directories: hard links into a local store and no copy out of it; copies for a remote one.

    Layout below the artifact's URI: `data/` with the files, and `files.json`, written last, with
    the size in bytes and the modification time in ns of each. Who loads an artifact from a local
    store is handed the store's own files and must not write to them.
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
            file.write(json.dumps(manifest(data), sort_keys=True))

    def load(self, data_type: type[Any]) -> Path:
        source = f"{self.uri}/{DATA}"
        if self.artifact_store.config.is_local:
            return Path(source)
        with self.get_temporary_directory(delete_at_exit=False) as directory:
            io_utils.copy_dir(source, directory, overwrite=True)
            return Path(directory)

    def save_visualizations(self, data: Path) -> dict[str, VisualizationType]:
        """Pages that the dashboard shows: HTML files at the top of the directory, as they lie."""
        pages = sorted(path.name for path in data.glob("*.html"))
        return {f"{self.uri}/{DATA}/{name}": VisualizationType.HTML for name in pages}

    def compute_content_hash(self, data: Path) -> str:
        return hash_directory(data)


def link_or_copy(source: str, target: str) -> None:
    """A second name for the same file where the file system can do that, else a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def manifest(directory: Path) -> dict[str, list[int]]:
    """Relative name -> [size in bytes, modification time in ns] of all files below `directory`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    stats = ((path.relative_to(directory).as_posix(), path.stat()) for path in files)
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats}


def intact(uri: str, content_hash: str | None) -> bool:
    """Whether an artifact saved here is still what it was.

    In a local store every file's size and time are compared, and the contents are hashed only
    where these differ; in a remote one only the manifest is looked for.
    """
    recorded = f"{uri}/{MANIFEST}"
    if "://" in uri:
        return bool(fileio.exists(recorded))
    data = Path(uri, DATA)
    if not data.is_dir() or not Path(recorded).is_file():
        return False
    if manifest(data) == json.loads(Path(recorded).read_text()):
        return True
    return hash_directory(data) == content_hash


def complete(uri: str) -> bool:
    """Whether no part of the artifact saved here is recorded as failed."""
    with fileio.open(f"{uri}/{MANIFEST}") as file:
        return FAILED not in json.loads(file.read())
