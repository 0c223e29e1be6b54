"""Text sources: resolved and hashed by content; an unusable one is refused in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from adapruner.data.texts.sources import TextSource, TextSources, as_tuple, resolve_texts
from adapruner.errors import UserError
from tests.adapruner.data.pools import resolve, run_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


UNUSABLE: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda folder: str(folder / "none.txt"), "calibration.source: no such file"),
    "directory": (str, "is a directory"),
    "too long": (lambda folder: "x" * 5000 + ".txt", "can't be read"),
    "package": (lambda folder: "package:nltk", "expected package:gensim, package:gensim#news"),
    "part of a package": (lambda folder: "package:gensim#poems", "package:NAME#code"),
    "missing package": (lambda folder: "package:no_such#code", "pip install --no-deps no_such"),
    "hub without commit": (lambda folder: "hub:a/b", "needs the 40 hex digits of a commit"),
    "hub with branch": (lambda folder: "hub:a/b@main", "revision is 'main'"),
    "unknown generated text": (lambda folder: "self:poems", "no such file: self:poems"),
    "malformed hub": (lambda folder: "hub:a/b/c d", "is not hub:OWNER/NAME"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_source_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    uri_in, expected = UNUSABLE[name]
    with pytest.raises(UserError) as error:
        resolve(uri_in(tmp_path))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_every_source_is_resolved_and_hashed_by_content(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.txt", "same"), write(tmp_path / "2.txt", "same")
    other = write(tmp_path / "3.txt", "other")
    hub = f"hub:owner/name:config@{COMMIT}#test"
    sources = resolve(
        str(one),
        calibration={"objective_source": [str(two)]},
        finetune={"source": str(other)},
        evaluation={"texts": {"hub": hub}},
    )
    assert list(sources) == [str(one), str(two), str(other), hub]
    assert sources[str(one)].content_hash == sources[str(two)].content_hash
    assert sources[str(one)].content_hash != sources[str(other)].content_hash
    assert sources[hub].location == "owner/name:config#test"
    assert sources[hub].revision == COMMIT
    old = sources[str(other)].content_hash
    write(other, "changed")
    assert resolve(str(other))[str(other)].content_hash != old


def test_a_hub_text_for_the_test_needs_its_split(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "text")
    with pytest.raises(UserError, match="split"):
        resolve(str(file), calibration={"revision": COMMIT}, evaluation={"texts": {"t": "hub:a/b"}})


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gensim"):
        resolve("package:gensim")


def test_a_model_is_not_tested_on_text_that_it_generated(tmp_path: Path) -> None:
    for source in ("self", "self:chat", ["self", "self:chat"]):
        with pytest.raises(UserError, match="name a test text"):
            resolve_texts(run_config({"source": source}))
    file = str(write(tmp_path / "a.txt", "text"))
    assert list(resolve_texts(run_config({"source": ["self:chat", file]})).sources)[1] == file


@pytest.mark.parametrize("uri", ["self", "self:chat"])
def test_only_the_calibration_source_is_generated(uri: str, tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.txt", "text"))
    with pytest.raises(UserError, match=rf"finetune\.source: {uri}: only calibration\.source"):
        resolve(file, finetune={"source": uri})


def test_a_source_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.txt", "text"))
    with pytest.raises(UserError, match="listed twice"):
        resolve_texts(run_config({"source": [file, file]}))


def test_sources_are_read_back_as_written(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.txt", "text"))
    texts = TextSources(sources=resolve(file))
    texts.write(tmp_path)
    assert TextSources.read(tmp_path) == texts
    assert isinstance(texts.sources[file], TextSource)
    assert texts.sources[file].uri == file


def test_a_setting_has_one_source_several_or_none() -> None:
    assert as_tuple(None) == ()
    assert as_tuple("a") == ("a",)
    assert as_tuple(["a", "b"]) == ("a", "b")
