from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapruner.config import RunConfig
from adapruner.data.texts.sources import TextSource, TextSources
from adapruner.models.storage.sources import CheckpointSource
from steps.publishing.provenance import config_hash, provenance, publishable, settings_hash
from tests.steps.configs import minimal_config

STORAGE = "postgresql://u:SECRET@host/s?password=SECRET"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return minimal_config(tmp_path)


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Path]:
    names = ("filter_calibration_pool", "estimate_importance", "search", "prune", "finetune")
    directories = {name: tmp_path / name for name in names}
    for name, directory in directories.items():
        directory.mkdir()
        (directory / f"{name}.txt").write_text(name)
    (directories["search"] / "plan.json").write_text("{}")
    (directories["finetune"] / "checkpoint").mkdir()
    return directories


def facts(config: RunConfig, stages: dict[str, Path]) -> dict[str, Any]:
    source = CheckpointSource(uri="m", kind="directory", location="/elsewhere/m", content_hash="c0")
    text = TextSource(
        uri="t.txt",
        kind="text",
        location="/elsewhere/t.txt",
        revision=None,
        content_hash="t0",
    )
    return provenance(config, source, TextSources(sources={"t.txt": text}), stages)


def test_passwords_and_query_of_the_storage_are_not_published(config: RunConfig) -> None:
    search = config.search.model_copy(update={"storage": STORAGE})
    shown = publishable(config.model_copy(update={"search": search}))
    assert shown.search.storage == "postgresql://host/s"
    assert publishable(config) == config


def test_sources_are_published_without_their_location(
    config: RunConfig, stages: dict[str, Path]
) -> None:
    shown = facts(config, stages)
    assert shown["source"]["uri"] == "m"
    assert shown["texts"]["t.txt"]["content_hash"] == "t0"
    assert "/elsewhere" not in str(shown)


def test_the_hash_of_a_stage_changes_with_its_files_alone(
    config: RunConfig, stages: dict[str, Path]
) -> None:
    before = facts(config, stages)["hashes"]
    assert (before["source"], before["texts"]) == ("c0", {"t.txt": "t0"})
    (stages["prune"] / "prune.txt").write_text("other weights")
    after = facts(config, stages)["hashes"]
    assert {name for name in after if after[name] != before[name]} == {"pruned_checkpoint"}


def test_installed_versions_are_recorded(config: RunConfig, stages: dict[str, Path]) -> None:
    import torch

    assert facts(config, stages)["versions"]["torch"] == torch.__version__


def test_the_config_hash_changes_with_every_setting(config: RunConfig) -> None:
    moved = config.model_copy(update={"output_dir": "elsewhere"})
    assert config_hash(moved) != config_hash(config)
    assert config_hash(config.model_copy()) == config_hash(config)


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"output_dir": "elsewhere"},
        {"model": {"source": "m/2", "device": "cpu"}},
        {"search": {"storage": "sqlite:///s.db"}},
        {"registry": {"name": "r", "alias": None}},
        {"seed": 0},
    ],
)
def test_names_places_and_explicit_defaults_leave_the_settings_hash_as_it_is(
    sections: dict[str, Any], config: RunConfig, tmp_path: Path
) -> None:
    assert settings_hash(minimal_config(tmp_path, **sections)) == settings_hash(config)


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"pruning": {"ratio": 0.3}},
        {"registry": {"name": "other"}},
        {"calibration": {"source": "other.txt"}},
    ],
)
def test_the_settings_hash_changes_with_settings_that_change_the_result(
    sections: dict[str, Any], config: RunConfig, tmp_path: Path
) -> None:
    assert settings_hash(minimal_config(tmp_path, **sections)) != settings_hash(config)
