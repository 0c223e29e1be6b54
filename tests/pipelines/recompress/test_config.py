from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from adapruner.errors import UserError
from pipelines.recompress.config import RecompressFile
from steps.publishing.provenance import settings_hash
from tests.pipelines import small

ROOT = Path(__file__).parents[3]


def recompress_file(tmp_path: Path, **settings: Any) -> RecompressFile:
    content = {**small.config(tmp_path), "models": [{"source": "a b", "target": "small"}]}
    path = tmp_path / "recompress.yaml"
    path.write_text(yaml.safe_dump({**content, **settings}))
    return RecompressFile(path)


def test_the_shipped_file_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shipped = RecompressFile(Path("configs/recompress.yaml"))
    assert shipped.config.retry.backoff == 1800
    assert shipped.config.models[0].versions.newest == 5
    _, run = shipped.run_of(shipped.config.models[0], "7")
    evaluated = {f"{name}_ppl_seq{run.evaluation.sequence_length}" for name in run.evaluation.texts}
    assert shipped.config.promotion.metric in evaluated


def test_every_version_is_a_run_with_the_same_settings(tmp_path: Path) -> None:
    file = recompress_file(tmp_path)
    (entry,) = file.config.models
    values, first = file.run_of(entry, "1")
    _, second = file.run_of(entry, "2")
    assert first.model.source == "models:/a b/1"
    assert first.registry.model_dump() == {"name": "small", "alias": None}
    assert first.name != second.name
    assert values["parameters"]["config"]["name"] == first.name
    assert settings_hash(first) == settings_hash(second)


def test_the_settings_hash_depends_on_settings_and_target_alone(tmp_path: Path) -> None:
    def of(change: dict[str, Any]) -> str:
        content = small.config(tmp_path)["parameters"]["config"]
        file = recompress_file(tmp_path, parameters={"config": {**content, **change}})
        return settings_hash(file.run_of(file.config.models[0], "1")[1])

    same = of({})
    assert of({"output_dir": "/elsewhere", "name": "other", "model": {"source": "x"}}) == same
    assert of({"seed": 0, "model": {"source": "x", "device": "cpu"}}) == same
    assert of({"seed": 1}) != same
    other = recompress_file(tmp_path, models=[{"source": "a b", "target": "other"}])
    assert settings_hash(other.run_of(other.config.models[0], "1")[1]) != same


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"modles": []}, "unknown key 'modles'; did you mean 'models'?"),
        ({"retry": {"atempts": 1}}, "unknown key 'retry.atempts'; did you mean 'attempts'?"),
        ({"models": [{"sorce": "a", "target": "b"}]}, "'models.0.sorce'; did you mean 'source'?"),
        ({"models": []}, "'models' is []"),
        ({"retry": {"backoff": "30"}}, "such as 90s, 30m, 12h or 7d"),
        ({"models": [{"source": "a/b", "target": "c"}]}, "'models.0.source' is 'a/b'"),
        ({"models": [{"source": "a", "target": "a"}]}, "both a source and a target"),
        ({"models": [{"source": "a", "target": "b"}] * 2}, "the same source and target"),
        ({"template": "x.yaml"}, "expected one of `template"),
        ({"parameters": None}, "expected one of `template"),
        ({"parameters": {"config": {"seeed": 1}}}, "unknown key 'seeed'"),
        ({"notify": {"url_env": "A", "body": "{{"}}, "not a usable Jinja2 template"),
        ({"notify": {"url_env": "A", "body": "{{ sorce }}"}}, "'sorce' is undefined"),
        (
            {"notify": {"url_env": "A", "body": "{{ ''.__class__.__mro__ }}"}},
            "not a usable Jinja2 template",
        ),
        (
            {"models": [{"source": "a", "target": "b", "versions": {"newest": 1, "alias": "x"}}]},
            "expected one of newest, alias and tag",
        ),
        (
            {"models": [{"source": "a", "target": "b", "versions": "some"}]},
            "expected all, {newest: N}",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        recompress_file(tmp_path, **settings)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
