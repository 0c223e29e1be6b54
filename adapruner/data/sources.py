"""Text sources: find them and tell them apart by content (`records` reads them).

A source is FILE.txt|jsonl|json|parquet, `package:gensim` (the embedded default),
`hub:OWNER/NAME[:CONFIG][@COMMIT][#SPLIT]`, or `self`, which the dense model writes. Every mistake
of a source is one line that names it.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from adapruner.config import RunConfig, Sources
from adapruner.errors import UserError
from adapruner.hashing import hash_file, hash_json

_GENSIM_DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_HUB = re.compile(
    r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?"
    r"(?:@(?P<commit>[\w./-]+))?(?:#(?P<split>[\w.:%\[\]-]+))?"
)
SELF = "self"
"""The source that is written by the dense model, see `generation`."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUFFIXES = {".txt": "txt", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet"}


class TextSource(BaseModel):
    """A source that was found: `location` is an absolute path or `OWNER/NAME[:CONFIG]#SPLIT`.

    `content_hash` is the file's sha256; of a hub source, the hash of its name and commit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    given: str
    kind: str
    location: str
    revision: str | None
    content_hash: str


def as_tuple(sources: Sources | None) -> tuple[str, ...]:
    """The sources of a setting that takes one, several or none."""
    if sources is None:
        return ()
    return (sources,) if isinstance(sources, str) else tuple(sources)


def resolve_texts(config: RunConfig) -> dict[str, TextSource]:
    """Every text source that `config` names, by the string it is given as.

    Reads local files once, to hash them; raises UserError for one that can't be a source.
    """
    calibration = config.calibration
    named = {
        "calibration.source": as_tuple(calibration.source),
        "calibration.objective_source": as_tuple(calibration.objective_source),
        "finetune.source": as_tuple(config.finetune.source),
    }
    if calibration.is_self_generated and not config.evaluation.texts:
        raise UserError(
            "calibration.source is self, and evaluation.texts is empty: name a test text; a model "
            "can't be tested on what it wrote"
        )
    found: dict[str, TextSource] = {}
    for setting, sources in named.items():
        if len(set(sources)) < len(sources):
            raise UserError(f"{setting}: a source is named twice in {', '.join(sources)}")
        for given in sources:
            found[given] = _resolve(given, setting, calibration.revision, calibration.split)
    for name, given in config.evaluation.texts.items():
        setting = f"evaluation.texts.{name}"
        found[given] = _resolve(given, setting, calibration.revision, None)
    return found


def _resolve(given: str, setting: str, revision: str | None, split: str | None) -> TextSource:
    if given == SELF:
        hashed = hash_json([SELF])  # the checkpoint that writes is an input of its own
        return TextSource(given=given, kind=SELF, location=SELF, revision=None, content_hash=hashed)
    scheme = given.partition(":")[0]
    if scheme == "hub":
        return _resolve_hub(given, setting, revision, split)
    if scheme == "package":
        return _resolve_package(given, setting)
    return _resolve_file(given, setting)


def _resolve_file(given: str, setting: str) -> TextSource:
    path = Path(given)
    kinds = ", ".join(_SUFFIXES)
    try:
        if not path.exists():
            raise UserError(f"{setting}: no such file: {given} (looked in {Path.cwd()})")
        if path.is_dir():
            raise UserError(f"{setting}: {given} is a directory: give one file ({kinds}) or a list")
        if not path.is_file():
            raise UserError(f"{setting}: {given} is not a regular file")
        if path.suffix.lower() not in _SUFFIXES:
            raise UserError(
                f"{setting}: {given}: unknown kind of file '{path.suffix}'; known here: {kinds}"
            )
        if path.stat().st_size == 0:
            raise UserError(f"{setting}: {given} is empty")
        digest = hash_file(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{setting}: {given!r} can't be read: {error}") from None
    return TextSource(
        given=given,
        kind=_SUFFIXES[path.suffix.lower()],
        location=str(path.resolve()),
        revision=None,
        content_hash=digest,
    )


def _resolve_package(given: str, setting: str) -> TextSource:
    if given != "package:gensim":
        raise UserError(f"{setting}: {given}: the only text package known is package:gensim")
    spec = importlib.util.find_spec("gensim")
    folders = spec.submodule_search_locations if spec else None
    dump = Path(folders[0]) / _GENSIM_DUMP if folders else None
    if dump is None or not dump.is_file():
        raise UserError(
            f"{setting}: package:gensim: gensim's Wikipedia dump is not installed here: "
            "run `pip install --no-deps gensim`, or give a text file"
        )
    return TextSource(
        given=given,
        kind="wikipedia",
        location=str(dump),
        revision=None,
        content_hash=hash_file(dump),
    )


def _resolve_hub(given: str, setting: str, revision: str | None, split: str | None) -> TextSource:
    match = _HUB.fullmatch(given)
    if not match:
        raise UserError(f"{setting}: {given} is not hub:OWNER/NAME[:CONFIG][@COMMIT][#SPLIT]")
    name, config, commit, own_split = match.groups()
    commit, split = commit or revision, own_split or split
    if commit is None or not _COMMIT.fullmatch(commit):
        raise UserError(
            f"{setting}: {given}: revision is {commit!r}; a hub data set needs the 40 hex digits "
            "of a commit, as calibration.revision or behind the name: hub:OWNER/NAME@COMMIT"
        )
    if split is None:
        raise UserError(f"{setting}: {given}: say which split is the test text: {given}#test")
    location = f"{name}:{config}#{split}" if config else f"{name}#{split}"
    return TextSource(
        given=given,
        kind="hub",
        location=location,
        revision=commit,
        content_hash=hash_json([name, config, split, commit]),
    )
