"""Copies between a remote artifact store and this machine: in parallel, verified, never twice.

Files are kept by content in a folder of the node, the cache: `ADAPRUNER_CACHE`, a volume that the
processes of a node share, else a folder of this process. Its size is bounded by
`ADAPRUNER_CACHE_GB`; the files that were not used for the longest time go first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock
from zenml.io import fileio

from adapruner.errors import UserError
from adapruner.files import flush, link_or_copy
from adapruner.hashing import hash_file

CACHE_GB = "ADAPRUNER_CACHE_GB"
DEFAULT_GB = 100.0
WORKERS = 8
"""Files that are copied at once."""

CHUNK = 16 * 2**20


@dataclass(frozen=True)
class Traffic:
    """Bytes between the store and this machine, and bytes that the node's cache had already."""

    moved: int = 0
    cached: int = 0
    files: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.moved + other.moved, self.cached + other.cached, self.files + other.files
        )

    def __str__(self) -> str:
        cached = f", {self.cached / 1e6:,.1f} MB cached" if self.cached else ""
        return f"{self.files} files, {self.moved / 1e6:,.1f} MB moved{cached}"


def download(uri: str, hashes: Mapping[str, str], target: Path, cache: Path) -> Traffic:
    """Copies the files `hashes` (relative name -> sha256) below `uri` to `target`.

    Raises UserError for a file that is not the one that was stored.
    """

    def fetch(item: tuple[str, str]) -> Traffic:
        name, digest = item
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        blob = _blob(cache, digest)
        with _locked(blob):
            is_kept = blob.is_file() and hash_file(blob) == digest
            if is_kept:
                os.utime(blob)
            else:
                _fetch(f"{uri}/{name}", blob, digest)
            link_or_copy(blob, file)
        size = file.stat().st_size
        return Traffic(cached=size, files=1) if is_kept else Traffic(moved=size, files=1)

    return _in_parallel(fetch, hashes.items(), cache)


def upload(source: Path, hashes: Mapping[str, str], uri: str, cache: Path) -> Traffic:
    """Copies the files `hashes` (relative name -> sha256) below `source` to `uri`.

    They are in the cache afterwards, for the steps that read them on this node.
    """

    def send(item: tuple[str, str]) -> Traffic:
        name, digest = item
        path = f"{uri}/{name}"
        fileio.makedirs(path.rpartition("/")[0])
        fileio.copy(str(source / name), path, overwrite=True)
        blob = _blob(cache, digest)
        with _locked(blob):
            if not blob.is_file():
                partial = _beside(blob)
                link_or_copy(source / name, partial)
                flush(partial)
                partial.replace(blob)
        return Traffic(moved=blob.stat().st_size, files=1)

    return _in_parallel(send, hashes.items(), cache)


def blobs(cache: Path) -> list[Path]:
    """The contents in the cache, each in a file with the name of its hash."""
    return sorted(cache.glob("??/" + "?" * 64))


def _in_parallel(
    copy: Callable[[tuple[str, str]], Traffic], items: Iterable[tuple[str, str]], cache: Path
) -> Traffic:
    with ThreadPoolExecutor(WORKERS) as pool:
        traffic = sum(pool.map(copy, items), Traffic())
    _evict(cache, _limit())
    return traffic


def _blob(cache: Path, digest: str) -> Path:
    """The file of a content in the cache, whose folder exists afterwards."""
    folder = cache / digest[:2]
    folder.mkdir(parents=True, exist_ok=True)
    return folder / digest


def _locked(blob: Path) -> FileLock:
    """The lock of the contents in the folder of `blob`, among the processes of the node."""
    return FileLock(blob.parent.with_suffix(".lock"))


def _beside(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.{uuid4().hex}")


def _fetch(path: str, blob: Path, digest: str) -> None:
    """Writes `blob` as a whole or not at all."""
    partial, total = _beside(blob), hashlib.sha256()
    try:
        with fileio.open(path, "rb") as source, partial.open("wb") as file:
            while chunk := source.read(CHUNK):
                total.update(chunk)
                file.write(chunk)
        if total.hexdigest() != digest:
            raise UserError(
                f"'{path}' is not the file that was stored: its sha256 is {total.hexdigest()}, "
                f"expected {digest}; remove the artifact and run again"
            )
        flush(partial)
        partial.replace(blob)
    finally:
        partial.unlink(missing_ok=True)


def _limit() -> int:
    """The bound of the cache, in bytes."""
    text = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise UserError(f"{CACHE_GB} is {text!r}; expected a number of gigabytes, such as 100")
    return int(gigabytes * 1e9)


def _evict(cache: Path, limit: int) -> None:
    """Removes the contents that were not used for the longest time, down to `limit` bytes.

    A directory that was made of them keeps its files: they are hard links, or copies.
    """
    with FileLock(cache / "evict.lock"):
        kept = [(blob, blob.stat()) for blob in blobs(cache)]
        total = sum(stat.st_size for _, stat in kept)
        for blob, stat in sorted(kept, key=lambda item: item[1].st_mtime_ns):
            if total <= limit:
                break
            with _locked(blob):
                blob.unlink()
            total -= stat.st_size
