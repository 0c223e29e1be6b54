from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from adapruner.config import ModelConfig
from adapruner.data.texts.sources import resolve_texts, with_files
from adapruner.errors import UserError
from adapruner.models.storage.sources import resolve
from adapruner.remote_files import fetch, is_url
from tests.pipelines import small
from tests.steps.configs import minimal_config

STORE = "memory://texts"
"""fsspec's own store in memory: what is read from it is nowhere in the file system."""


def put(name: str, content: bytes) -> str:
    with fsspec.open(f"{STORE}/{name}", "wb") as file:
        file.write(content)
    return f"{STORE}/{name}"


def test_urls_are_told_from_paths_and_names() -> None:
    assert is_url("s3://bucket/file.txt")
    assert not any(map(is_url, ("models:/name/1", "hub:a/b", "package:gensim", "a/b.txt", "self")))


def test_a_text_at_a_url_is_the_same_source_on_every_machine(tmp_path: Path) -> None:
    uri = put("news.txt", b"some words\n")
    config = minimal_config(tmp_path, calibration={"source": uri})
    sources = resolve_texts(config, tmp_path / "first").sources
    assert Path(sources[uri].location).read_bytes() == b"some words\n"
    gone = sources[uri].model_copy(update={"location": "/nowhere/news.txt"})
    here = with_files({uri: gone}, tmp_path / "second")[uri]
    assert Path(here.location).is_relative_to(tmp_path / "second")
    put("news.txt", b"other words\n")
    with pytest.raises(UserError, match="changed"):
        with_files({uri: gone}, tmp_path / "third")


def test_a_checkpoint_at_a_url_is_fetched_as_a_folder(tmp_path: Path) -> None:
    small.write_checkpoint(tmp_path / "model", seed=0)
    for file in (tmp_path / "model").iterdir():
        put(f"model/{file.name}", file.read_bytes())
    uri = f"{STORE}/model"
    fetched = resolve(ModelConfig(source=uri), fetch(uri, tmp_path / "fetched"))
    assert fetched.content_hash == resolve(ModelConfig(source=str(tmp_path / "model"))).content_hash


def test_a_missing_file_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        fetch(f"{STORE}/absent.txt", tmp_path)
    with pytest.raises(UserError, match="nosuch"):
        fetch("nosuch://store/x.txt", tmp_path)
    assert not list(tmp_path.iterdir())
