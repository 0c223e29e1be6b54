"""Files behind URLs, such as s3://BUCKET/PATH: copied to this machine before they are hashed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from adapruner.errors import UserError, first_line
from adapruner.files import flush
from adapruner.hashing import hash_json
from adapruner.temporary import remove_abandoned, temporary_folder

PARTIAL = ".fetch-"
"""How the name of a folder with incomplete copies begins."""

_CHANGES = ("ETag", "etag", "LastModified", "mtime", "updated", "md5")
"""What the stores call that which differs after a file was replaced by one of equal size."""


def is_url(uri: str) -> bool:
    """Whether the files are in a store that fsspec knows, not in a file system, hub or registry."""
    return re.match(r"[a-z][a-z0-9+.-]*://", uri) is not None


def fetch(uri: str, folder: Path) -> Path:
    """A copy below `folder` of the file, or of the folder of files, at `uri`.

    It is copied again only when the store lists other names, sizes or times. Raises UserError where
    there is no such file, or no package for the store.
    """
    try:
        store, path = _store(uri)
        listed = {path: store.info(path)} if store.isfile(path) else store.find(path, detail=True)
        if not listed:
            raise FileNotFoundError(f"no file at {uri}")
        key = hash_json([uri, {name: _state(info) for name, info in sorted(listed.items())}])[:16]
        target = folder / key / path.rstrip("/").rpartition("/")[2]
        if target.exists():
            os.utime(target.parent)  # when it was last used
        else:
            _copy(store, path, sorted(listed), target)
        return target
    except UserError:
        raise
    except Exception as error:  # each store has its own exceptions
        raise UserError(f"{uri} can't be fetched: {first_line(error)}") from error


def _store(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        store, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        extra = "pip install 'adapruner[s3]'" if uri.startswith("s3://") else "install its package"
        raise UserError(f"{uri}: {first_line(error)}; {extra}") from None
    store.invalidate_cache()
    return store, path


def _state(info: dict[str, Any]) -> list[str]:
    return [str(info.get("size")), *(str(info[name]) for name in _CHANGES if name in info)]


def _copy(store: Any, path: str, names: list[str], target: Path) -> None:
    """Copies all files or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent.glob(f"{PARTIAL}*"))
    with temporary_folder(target.parent, PARTIAL) as temporary:
        new = temporary / target.name
        for name in names:
            file = new if name == path else new / name.removeprefix(path).lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(name, str(file))
        if not target.exists():
            flush(new)
            new.rename(target)
