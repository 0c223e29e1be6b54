"""Text sources: resolved to a location and a content hash (`readers` reads them).

A source is FILE.txt|jsonl|json|parquet or the URL of such a file (s3://...), `package:NAME[#PART]`,
which is in an installed package, `hub:OWNER/NAME[:CONFIG][@COMMIT][#SPLIT]`, or `self` or
`self:chat`, which the dense model generates. Every error is one line that names the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from adapruner.config import RunConfig, Sources
from adapruner.config.calibration import SELF, SELF_CHAT
from adapruner.data.texts.package_texts import find_package_text
from adapruner.errors import UserError
from adapruner.files import Artifact
from adapruner.hashing import hash_file, hash_json
from adapruner.remote_files import fetch, is_url

_HUB = re.compile(
    r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?"
    r"(?:@(?P<commit>[\w./-]+))?(?:#(?P<split>[\w.:%\[\]-]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}


class TextSource(BaseModel):
    """A resolved source.

    `uri` is the source as it was set. `location` is an absolute path or
    `OWNER/NAME[:CONFIG]#SPLIT`. The content hash is the file's sha256; for the code of a package it
    is the hash of its files, for a hub source the hash of name, split and commit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    kind: str
    location: str
    revision: str | None
    content_hash: str


class TextSources(Artifact):
    """All text sources of a run, by URI."""

    FILE: ClassVar[str] = "texts.json"

    sources: dict[str, TextSource]


def as_tuple(sources: Sources | None) -> tuple[str, ...]:
    """The sources of a setting that has one, several or none."""
    if sources is None:
        return ()
    return (sources,) if isinstance(sources, str) else tuple(sources)


def resolve_texts(config: RunConfig, folder: Path = Path(".adapruner/fetched")) -> TextSources:
    """Every text source that `config` names.

    Files behind URLs are copied to `folder`. Reads all files once, to hash them. Raises UserError
    for a source that does not exist or is not of a supported kind.
    """
    calibration = config.calibration
    by_setting = {
        "calibration.source": as_tuple(calibration.source),
        "calibration.objective_source": as_tuple(calibration.objective_source),
        "finetune.source": as_tuple(config.finetune.source),
    }
    is_all_generated = set(by_setting["calibration.source"]) <= set(calibration.generated_sources)
    if is_all_generated and not config.evaluation.texts:
        raise UserError(
            "calibration.source is generated, and evaluation.texts is empty: name a test "
            "text; a model can't be tested on text that it generated"
        )
    resolved: dict[str, TextSource] = {}
    for setting, uris in by_setting.items():
        if len(set(uris)) < len(uris):
            raise UserError(f"{setting}: a source is listed twice in {', '.join(uris)}")
        for uri in uris:
            file = fetch(uri, folder) if is_url(uri) else Path(uri)
            resolved[uri] = _resolve(uri, file, setting, calibration.revision, calibration.split)
    for name, uri in config.evaluation.texts.items():
        setting = f"evaluation.texts.{name}"
        file = fetch(uri, folder) if is_url(uri) else Path(uri)
        resolved[uri] = _resolve(uri, file, setting, calibration.revision, None)
    return TextSources(sources=resolved)


def with_files(sources: dict[str, TextSource], folder: Path) -> dict[str, TextSource]:
    """The sources with their files on this machine, which may not be the one that resolved them.

    Raises UserError for a file that is not here or has changed since.
    """
    return {uri: _with_file(source, folder) for uri, source in sources.items()}


def _with_file(source: TextSource, folder: Path) -> TextSource:
    if not is_url(source.uri) or Path(source.location).is_file():
        return source
    file = fetch(source.uri, folder)
    if hash_file(file) != source.content_hash:
        raise UserError(f"{source.uri} has changed since the run began; run again")
    return source.model_copy(update={"location": str(file.resolve())})


def check_unchanged(sources: Iterable[TextSource]) -> None:
    """Raises UserError where a file is no longer the one that was hashed. Call after reading."""
    for source in sources:
        file = Path(source.location)
        is_file = source.kind in _SUFFIXES.values() and file.is_file()
        if is_file and hash_file(file) != source.content_hash:
            raise UserError(
                f"{source.uri} changed after the run had started; run again when it is complete"
            )


def _resolve(
    uri: str, file: Path, setting: str, revision: str | None, split: str | None
) -> TextSource:
    if uri in (SELF, SELF_CHAT):
        return _resolve_generated(uri, setting)
    scheme = uri.partition(":")[0]
    if scheme == "hub":
        return _resolve_hub(uri, setting, revision, split)
    if scheme == "package":
        return _resolve_package(uri, setting)
    return _resolve_file(uri, file, setting)


def _resolve_generated(uri: str, setting: str) -> TextSource:
    if setting != "calibration.source":
        raise UserError(f"{setting}: {uri}: only calibration.source may be generated: name a text")
    # The generating checkpoint is an input of its own, so its content needs no hash here.
    content_hash = hash_json([uri])
    return TextSource(uri=uri, kind=SELF, location=uri, revision=None, content_hash=content_hash)


def _resolve_file(uri: str, path: Path, setting: str) -> TextSource:
    kinds = ", ".join(_SUFFIXES)
    try:
        if not path.exists():
            raise UserError(f"{setting}: no such file: {uri} (in {Path.cwd()})")
        if path.is_dir():
            raise UserError(f"{setting}: {uri} is a directory: name one file ({kinds}) or a list")
        if not path.is_file():
            raise UserError(f"{setting}: {uri} is not a regular file")
        if path.suffix.lower() not in _SUFFIXES:
            raise UserError(
                f"{setting}: {uri}: unsupported file type '{path.suffix}'; supported are {kinds}"
            )
        if path.stat().st_size == 0:
            raise UserError(f"{setting}: {uri} is empty")
        content_hash = hash_file(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{setting}: {uri!r} can't be read: {error}") from None
    return TextSource(
        uri=uri,
        kind=_SUFFIXES[path.suffix.lower()],
        location=str(path.resolve()),
        revision=None,
        content_hash=content_hash,
    )


def _resolve_package(uri: str, setting: str) -> TextSource:
    text = find_package_text(uri, setting)
    return TextSource(
        uri=uri,
        kind=text.kind,
        location=str(text.location),
        revision=None,
        content_hash=text.content_hash,
    )


def _resolve_hub(uri: str, setting: str, revision: str | None, split: str | None) -> TextSource:
    match = _HUB.fullmatch(uri)
    if not match:
        raise UserError(f"{setting}: {uri} is not hub:OWNER/NAME[:CONFIG][@COMMIT][#SPLIT]")
    name, config, commit, split_in_uri = match.groups()
    commit, split = commit or revision, split_in_uri or split
    if commit is None or not _COMMIT.fullmatch(commit):
        raise UserError(
            f"{setting}: {uri}: revision is {commit!r}; a hub data set needs the 40 hex digits "
            "of a commit, as calibration.revision or after the name: hub:OWNER/NAME@COMMIT"
        )
    if split is None:
        raise UserError(f"{setting}: {uri}: a test text needs the name of its split: {uri}#test")
    location = f"{name}:{config}#{split}" if config else f"{name}#{split}"
    return TextSource(
        uri=uri,
        kind="hub",
        location=location,
        revision=commit,
        content_hash=hash_json([name, config, split, commit]),
    )
