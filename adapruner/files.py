"""Files: JSON, typed JSON artifacts, hard links, whole-file replacement, manifests."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from adapruner.errors import UserError, first_line


class Record(BaseModel):
    """A frozen part of an artifact; it refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Artifact(Record):
    """The content of a JSON file that one stage writes and others read.

    A subclass names its file in `FILE`; all stages read and write it through this class.
    """

    FILE: ClassVar[str]

    def write(self, directory: Path) -> None:
        """Writes `FILE` in `directory`, which exists."""
        write_json(directory / self.FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The artifact in `directory`. Raises UserError for a file that is not one."""
        file = directory / cls.FILE
        try:
            return cls.model_validate(read_json(file))
        except OSError as error:
            raise UserError(f"'{file}' can't be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            message = f"'{where}': {first['msg']}" if where else first["msg"]
            raise UserError(f"'{file}' is not valid: {message}") from None
        except ValueError as error:  # the syntax, or the encoding
            raise UserError(f"'{file}' is not valid JSON: {first_line(error)}") from None

    @classmethod
    def exists(cls, directory: Path) -> bool:
        """Whether `directory` has the artifact's file."""
        return (directory / cls.FILE).is_file()


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a character, which JSON allows alone and UTF-8 does not."""


def read_json(file: Path) -> Any:
    """The value in a JSON file. Raises OSError, or ValueError for a file that holds none."""
    text = file.read_text(encoding="utf-8")
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(
                value, ensure_ascii=False
            ).encode()  # UnicodeEncodeError for half a character
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def write_json(file: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Writes a value as indented JSON in UTF-8, ending with a line feed."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=sort_keys)
    file.write_text(text + "\n", encoding="utf-8")


def replace_text(file: Path, text: str) -> None:
    """Writes `file` as a whole or not at all.

    Raises UserError where it can't be written, and for a device or a pipe, which a rename replaces.
    """
    if file.exists() and not file.is_file():
        raise UserError(f"'{file}' is no regular file; name a file to write")
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    except OSError as error:
        raise UserError(f"'{file}' can't be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())  # else a crash can leave the new name with an empty file
        Path(temporary).chmod(0o644)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Waits until all bytes of a file, or of the files in a folder, are on the disk.

    Call it before the rename that makes them complete: else a crash of the machine can leave the
    new name with empty files.
    """
    for file in (path, *path.rglob("*")):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link to the file behind `source` where the file system allows it, else a copy."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def file_manifest(directory: Path) -> dict[str, list[int]]:
    """Relative name -> [size in bytes, modification time in ns] of all files below `directory`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    stats = ((path.relative_to(directory).as_posix(), path.stat()) for path in files)
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats}


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings as (dotted name, value) pairs, in their order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
