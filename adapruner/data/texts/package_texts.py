"""Text in installed Python packages: `package:NAME` or `package:NAME#PART`.

The packages are located, never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from adapruner.data.texts import python_code
from adapruner.errors import UserError
from adapruner.hashing import hash_file, hash_json

_GENSIM_DATA = "test/test_data"
_WIKIPEDIA = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_NEWS = "lee_background.cor"


class PackageText(NamedTuple):
    """Kind of text in a package, its file or folder, and the hash of its content."""

    kind: str
    location: Path
    content_hash: str


class _MissingError(Exception):
    """The package has no such text."""


def find_package_text(uri: str, setting: str) -> PackageText:
    """The text that `uri` names. Raises UserError when it is unknown or not installed."""
    name, _, part = uri.removeprefix("package:").partition("#")
    find = _TEXTS.get((name, part)) or _TEXTS.get(("NAME", part))
    if find is None or not name.isidentifier():
        raise UserError(f"{setting}: {uri} is unknown; expected {_EXPECTED}")
    spec = importlib.util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    try:
        if not folders:
            raise _MissingError("there is no such package")
        return find(Path(next(iter(folders))))
    except _MissingError as error:
        raise UserError(
            f"{setting}: {uri}: {error}: run `pip install --no-deps {name}`, or name a text file; "
            f"of packages, expected {_EXPECTED}"
        ) from None


def _gensim(kind: str, file_name: str) -> Callable[[Path], PackageText]:
    def find(folder: Path) -> PackageText:
        file = folder / _GENSIM_DATA / file_name
        if not file.is_file():
            raise _MissingError(f"{file} does not exist")
        return PackageText(kind, file, hash_file(file))

    return find


def _code(folder: Path) -> PackageText:
    hashes = {
        file.relative_to(folder).as_posix(): hash_file(file) for file in python_code.files(folder)
    }
    if not hashes:
        raise _MissingError("it has no .py files")
    return PackageText("code", folder, hash_json(hashes))


_TEXTS: dict[tuple[str, str], Callable[[Path], PackageText]] = {
    ("gensim", ""): _gensim("wikipedia", _WIKIPEDIA),
    ("gensim", "news"): _gensim("news", _NEWS),
    ("NAME", "code"): _code,
}
"""Package and part -> how its text is found; NAME is any package."""

_EXPECTED = ", ".join(
    f"package:{name}#{part}" if part else f"package:{name}" for name, part in _TEXTS
)
