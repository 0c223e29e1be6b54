"""Files and overrides of runs, of comparisons and of `adapruner recompress`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adapruner.config import RunConfig
from pipelines import config_file
from pipelines.recompress.config import RecompressFile
from tests.malformed.mutations import (
    ODD,
    ODD_YAML,
    WRONG,
    WRONG_YAML,
    as_yaml,
    places,
    with_characters,
    with_key,
    with_value,
)
from tests.malformed.outcomes import examples, is_refused
from tests.pipelines import small

FOLDER = Path("models")
"""Relative: nothing of it has to exist."""

GATE = {"agreement": 0.9, "perplexity_ratio": {"own": 1.5}}
VALID_RUN = small.config(FOLDER) | {"enable_cache": True}
VALID_RUN["parameters"]["config"]["evaluation"]["gate"] = GATE
VALID_RUN["parameters"]["config"]["evaluation"]["texts"] = {"own": "own.txt"}
VALID_COMPARISON = small.config(FOLDER)
VALID_COMPARISON["parameters"]["comparison"] = {
    "methods": ["adapruner", "fisher"],
    "ratios": [0.2],
    "layouts": ["per_layer"],
    "seeds": [0, 1],
    "finetune": False,
    "variants": {"mine": {"method": "fisher", "settings": {"pruning": {"round_to": 8}}}},
}
VALID_RECOMPRESS = {
    **small.config(FOLDER),
    "models": [{"source": "a", "target": "b", "versions": {"newest": 2}}],
    "retry": {"attempts": 3, "backoff": "1h"},
    "lock_expiry": "10m",
    "promotion": {"metric": "text_ppl_seq16", "direction": "lower", "min_improvement": 0.1},
    "notify": {"url_env": "URL", "events": ["failure"], "body": "{{ summary }}", "timeout": "5s"},
}


def read_run(path: Path) -> None:
    """A file is accepted where ZenML, which gets it written again, reads the same run."""
    values, config = config_file.read(path, [])
    written = yaml.safe_load(yaml.safe_dump(values))
    assert RunConfig.model_validate(written["parameters"]["config"]) == config
    assert RunConfig.model_validate(config.model_dump(exclude_unset=True)) == config


def read_comparison(path: Path) -> None:
    values, config, comparison = config_file.read_comparison(path, [])
    written = yaml.safe_load(yaml.safe_dump(values))["parameters"]
    assert RunConfig.model_validate(written["config"]) == config
    assert type(comparison).model_validate(written["comparison"]) == comparison


def read_recompress(path: Path) -> None:
    file = RecompressFile(path)
    values, config = file.run_of(file.config.models[0], "1")
    written = yaml.safe_load(yaml.safe_dump(values))
    assert RunConfig.model_validate(written["parameters"]["config"]) == config


Read = Callable[[Path], None]
KINDS: dict[str, tuple[dict[str, Any], Read]] = {
    "run": (VALID_RUN, read_run),
    "comparison": (VALID_COMPARISON, read_comparison),
    "recompress": (VALID_RECOMPRESS, read_recompress),
}
kinds = st.sampled_from(sorted(KINDS))


def files(of: Callable[[dict[str, Any]], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A kind, and what `of` makes of its valid content."""
    return kinds.flatmap(lambda kind: st.tuples(st.just(kind), of(KINDS[kind][0])))


FREE = {"texts", "perplexity_ratio", "variants"}
"""Mappings whose keys are names of the user."""


def outcome(kind: str, content: str | bytes, folder: Path) -> bool:
    file = folder / "file.yaml"
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    file.write_bytes(data)
    return is_refused(lambda: KINDS[kind][1](file), folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_that_are_changed_are_valid(kind: str, tmp_path: Path) -> None:
    assert not outcome(kind, as_yaml(KINDS[kind][0]), tmp_path)


@given(file=files(lambda valid: with_value(valid, WRONG + WRONG_YAML, as_yaml)))
@examples(60)
def test_a_value_of_no_setting_is_refused(file: tuple[str, str], tmp_path: Path) -> None:
    assert outcome(*file, tmp_path)


@given(
    file=files(lambda valid: with_value(valid, ODD + ODD_YAML, as_yaml) | with_key(valid, as_yaml))
)
@examples(60)
def test_odd_values_and_keys_are_refused_or_valid(file: tuple[str, str], tmp_path: Path) -> None:
    outcome(*file, tmp_path)


@given(file=files(lambda valid: with_characters(as_yaml(valid)) | st.binary(max_size=60)))
@examples(60)
def test_text_that_is_cut_or_changed_is_refused_or_valid(
    file: tuple[str, bytes], tmp_path: Path
) -> None:
    outcome(*file, tmp_path)


@given(kind=kinds, data=st.data())
@examples(40)
def test_unknown_and_repeated_keys_are_refused(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    valid = KINDS[kind][0]
    keys = [p for p in places(valid) if isinstance(p[-1], str) and not FREE & {*map(str, p[:-1])}]
    path = data.draw(st.sampled_from(keys))
    lines = as_yaml(valid).splitlines(keepends=True)
    start = next(
        number for number, line in enumerate(lines) if line.lstrip(" -").startswith(f"{path[-1]}:")
    )
    indent = lines[start][: len(lines[start]) - len(lines[start].lstrip(" -"))].replace("-", " ")
    key = data.draw(st.sampled_from((path[-1], f"{path[-1]}s", "\x07", "[/b]", "1", "null")))
    more = f"{indent}{yaml.safe_dump(key).splitlines()[0]}: 1\n"
    assert outcome(kind, "".join([*lines[:start], more, *lines[start:]]), tmp_path)


SETTINGS = sorted(".".join(map(str, p)) for p in places(VALID_RUN["parameters"]["config"]))


@given(
    key=st.sampled_from(SETTINGS) | st.text(max_size=12),
    equals=st.sampled_from(("=", "", "==", ".=", ".x=", "x=")),
    value=st.sampled_from(WRONG + WRONG_YAML),
)
@examples(40)
def test_an_override_without_a_value_of_its_setting_is_refused(
    key: str, equals: str, value: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(as_yaml(VALID_RUN))
    assert is_refused(lambda: config_file.read(file, [f"{key}{equals}{value}"]), tmp_path)


@given(key=st.sampled_from(SETTINGS), value=st.sampled_from(ODD + ODD_YAML) | st.text(max_size=12))
@examples(40)
def test_other_overrides_are_refused_or_valid(key: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(as_yaml(VALID_RUN))
    is_refused(lambda: config_file.read(file, [f"{key}={value}"]), tmp_path)


@given(
    key=st.sampled_from(("", ".mean_retention", ".perplexity_ratio.own", ".task_retention", ".x")),
    value=st.sampled_from(WRONG + WRONG_YAML + ODD + ODD_YAML),
)
@examples(40)
def test_overrides_of_a_gate_are_refused_or_valid(key: str, value: str, tmp_path: Path) -> None:
    report = {"provenance": {"config": {"evaluation": {"gate": GATE}}}}
    override = f"{config_file.GATE}{key}={value}"
    is_refused(lambda: config_file.read_gate(report, None, [override]), tmp_path)
