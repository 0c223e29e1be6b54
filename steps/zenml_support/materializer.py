"""How the directory of a stage is stored in an artifact store: unchanged, file by file.

Layout below an artifact's URI: `data/` with the files, and `files.json`, written last: relative
name -> [size in bytes, modification time in ns, sha256 of the content]. A directory that was loaded
from a remote store has the same layout, with the URI in the file `origin` beside them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path, PosixPath
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer

from adapruner.files import file_manifest, link_or_copy, write_json
from adapruner.hashing import file_hashes, hash_directory, hash_files
from adapruner.progress import announce
from steps.zenml_support.transfer import download, upload
from steps.zenml_support.workspace import new_input, node_cache

DATA = "data"
MANIFEST = "files.json"
ORIGIN = "origin"
FAILED = "failed.json"
"""The file in which a stage records the parts of its result that failed."""

WEIGHTS = (".safetensors", ".gguf")

Manifest = dict[str, list[Any]]


class WithoutWeights(PosixPath):
    """The type of a step's input of which a remote store sends no weights and no tensors.

    The step reads configurations, tokenizers, summaries and hashes, or calls `whole` first.
    """


def is_intact(uri: str, content_hash: str | None) -> bool:
    """Whether the files of the artifact at `uri` are the ones that were stored.

    In a local store the sizes and modification times of all files are compared, and contents are
    hashed only where these differ. In a remote store only the manifest is read: each file is
    checked when it is loaded.
    """
    recorded = f"{uri}/{MANIFEST}"
    if "://" in uri:
        return bool(fileio.exists(recorded)) and bool(_hashes(_read_manifest(uri)))
    data = Path(uri, DATA)
    if not data.is_dir() or not Path(recorded).is_file():
        return False
    recorded_stats = {name: entry[:2] for name, entry in _read_manifest(uri).items()}
    if not recorded_stats:
        return False
    if file_manifest(data) == recorded_stats:
        return True
    return hash_directory(data) == content_hash


def is_complete(uri: str) -> bool:
    """Whether no part of the intact artifact at `uri` is recorded as failed."""
    return FAILED not in _read_manifest(uri)


def whole(directory: Path) -> Path:
    """The directory of an input, with the files that `WithoutWeights` left out."""
    origin = directory.parent / ORIGIN
    if origin.is_file():
        uri = origin.read_text(encoding="utf-8")
        hashes = _hashes(_read_manifest(str(directory.parent)))
        _load(uri, {k: v for k, v in hashes.items() if not (directory / k).exists()}, directory)
        origin.unlink()
    return directory


def content_hash(directory: Path, below: str = "") -> str:
    """`hash_directory` of an input or of its folder `below`, by the hashes recorded with it."""
    parent = directory.parent
    hashes = _hashes(_read_manifest(str(parent))) if (parent / MANIFEST).is_file() else {}
    if not hashes:
        return hash_directory(directory / below)
    prefix = f"{below}/" if below else ""
    inside = {k.removeprefix(prefix): v for k, v in hashes.items() if k.startswith(prefix)}
    return hash_files(inside)


def _hashes(manifest: Manifest) -> dict[str, str]:
    """Relative name -> sha256; empty for an artifact that was stored without hashes."""
    return {name: entry[2] for name, entry in manifest.items() if len(entry) > 2}


def _load(uri: str, hashes: dict[str, str], directory: Path) -> None:
    traffic = download(f"{uri}/{DATA}", hashes, directory, node_cache())
    announce(f"from the artifact store, {_name(uri)}: {traffic}")


def _name(uri: str) -> str:
    """The name of the artifact at a URI `.../STEP/ARTIFACT/RUN/ID`."""
    return uri.split("/")[-3]


def _read_manifest(uri: str) -> Manifest:
    """The manifest of an artifact; empty where it was not written to its end."""
    with fileio.open(f"{uri}/{MANIFEST}") as file:
        text = file.read()
    try:
        manifest: Manifest = {name: list(entry) for name, entry in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        return {}
    return manifest


def _typed(data_type: type[Any], path: str | Path) -> Path:
    """The path as the type of the input, which ZenML checks."""
    return WithoutWeights(path) if issubclass(data_type, WithoutWeights) else Path(path)


class DirectoryMaterializer(BaseMaterializer):
    """Directories: hard links into a local store and no copy out of it; copies for a remote one.

    A step that loads an artifact from a local store gets the store's own files; from a remote one,
    hard links to the node's cache. It must not write to them.
    """

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Path,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    SKIP_REGISTRATION: ClassVar[bool] = True

    _saved: tuple[dict[str, list[int]], dict[str, str]] = {}, {}

    def save(self, data: Path) -> None:
        target, stats, hashes = f"{self.uri}/{DATA}", file_manifest(data), file_hashes(data)
        if self.artifact_store.config.is_local:
            shutil.copytree(data, target, copy_function=link_or_copy)
        else:
            traffic = upload(data, hashes, target, node_cache())
            announce(f"to the artifact store, {_name(self.uri)}: {traffic}")
        manifest = {name: [*stats[name], digest] for name, digest in hashes.items()}
        with fileio.open(f"{self.uri}/{MANIFEST}", "w") as file:
            file.write(json.dumps(manifest, sort_keys=True))
        self._saved = stats, hashes

    def load(self, data_type: type[Any]) -> Path:
        if self.artifact_store.config.is_local:
            return _typed(data_type, f"{self.uri}/{DATA}")
        manifest, parent = _read_manifest(self.uri), new_input()
        directory, hashes = parent / DATA, _hashes(manifest)
        directory.mkdir()
        write_json(parent / MANIFEST, manifest)
        if issubclass(data_type, WithoutWeights):
            (parent / ORIGIN).write_text(self.uri, encoding="utf-8")
            hashes = {k: v for k, v in hashes.items() if not k.endswith(WEIGHTS)}
        _load(self.uri, hashes, directory)
        return _typed(data_type, directory)

    def save_visualizations(self, data: Path) -> dict[str, VisualizationType]:
        """The HTML files at the top of the directory, which ZenML's dashboard shows."""
        pages = sorted(path.name for path in data.glob("*.html"))
        return {f"{self.uri}/{DATA}/{name}": VisualizationType.HTML for name in pages}

    def compute_content_hash(self, data: Path) -> str:
        # ZenML asks for it after it has saved the same files: weights are read once.
        stats, hashes = self._saved
        return hash_files(hashes) if stats == file_manifest(data) else hash_directory(data)
