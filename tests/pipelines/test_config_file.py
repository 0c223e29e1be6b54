from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from adapruner.comparison.cells import ComparisonConfig, cells
from adapruner.config import RunConfig, presets
from adapruner.errors import UserError
from pipelines import config_file

ROOT = Path(__file__).parents[2]
FILE = """
parameters:
  config:
    name: mine
    model: {source: model}
    calibration: {source: text.txt}
    registry: {name: mine-pruned}
"""


def read(tmp_path: Path, text: str, *overrides: str) -> tuple[dict[str, Any], RunConfig]:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return config_file.read(path, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


PAPERS = [f"paper/{model}-7b-{ratio}" for model in ("llama", "vicuna") for ratio in (20, 50)]


@pytest.mark.parametrize("name", ["demo", "example", "cluster", *PAPERS])
def test_the_shipped_files_are_valid_for_us_and_for_zenml(name: str) -> None:
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    values, _ = config_file.read(ROOT / "configs" / f"{name}.yaml", [])
    PipelineRunConfiguration.model_validate(values)


@pytest.mark.parametrize("name", PAPERS)
def test_the_files_of_the_paper_have_the_papers_settings(name: str) -> None:
    from adapruner.evaluation.tasks.local_rows import SCHEMAS
    from adapruner.models.storage.sources import resolve

    _, config = config_file.read(ROOT / "configs" / f"{name}.yaml", [])
    assert name.endswith(f"{config.pruning.ratio * 100:.0f}")
    assert config.search.set_size == 10
    assert config.calibration.sequence_length == config.evaluation.sequence_length == 128
    assert set(config.evaluation.tasks) == set(SCHEMAS)
    assert set(config.evaluation.texts) == {"wikitext2", "ptb"}
    assert resolve(config.model).kind == "hub"


def test_the_shipped_comparison_is_valid_for_us_and_for_zenml() -> None:
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

    values, _, comparison = config_file.read_comparison(ROOT / "configs/compare.yaml", [])
    PipelineRunConfiguration.model_validate(values)
    assert set(comparison.methods) == {n for n in presets() if not n.endswith("+update")}


COMPARED = FILE + "  comparison: {methods: [fisher, random], ratios: [0.2, 0.5]}\n"
PORTABLE = "    pruning: {target: portable, layout: uniform, attention: kv_groups}\n  comparison:"
PORTABLE_HEADS = COMPARED.replace("  comparison:", PORTABLE).replace(
    "0.5]", "0.5], layouts: [uniform, per_layer]"
)
PORTABLE_WIDTHS = COMPARED.replace("  comparison:", PORTABLE).replace(
    "0.5]", "0.5], at_ratio: {0.5: {round_to: 8}}"
)


def compared(
    tmp_path: Path, text: str, *overrides: str
) -> tuple[dict[str, Any], RunConfig, ComparisonConfig]:
    (tmp_path / "run.yaml").write_text(text)
    return config_file.read_comparison(tmp_path / "run.yaml", overrides)


def test_a_comparison_is_an_optional_section(tmp_path: Path) -> None:
    overrides = ("comparison.seeds=[4, 5]", "pruning.ratio=0.3")
    values, config, comparison = compared(tmp_path, COMPARED, *overrides)
    assert [(c.method, c.ratio, c.seed) for c in cells(config, comparison)] == [
        ("fisher", 0.2, 0), ("random", 0.2, 4), ("random", 0.2, 5),
        ("fisher", 0.5, 0), ("random", 0.5, 4), ("random", 0.5, 5),
    ]  # fmt: skip
    assert yaml.safe_load(yaml.safe_dump(values))["parameters"]["comparison"]["seeds"] == [4, 5]
    values, config, comparison = compared(tmp_path, FILE)
    assert values["parameters"]["comparison"] == {}
    every = cells(config, comparison)
    assert {c.method for c in every} == set(presets())
    assert {(c.ratio, c.layout) for c in every if c.method != "ast"} == {(0.2, "per_layer")}
    assert {(c.ratio, c.layout) for c in every if c.method == "ast"} == {(0.5, "per_layer")}
    assert len({c.key for c in every}) == len(every)


def test_a_recompress_file_is_not_the_file_of_a_run() -> None:
    with pytest.raises(UserError, match="a file for `adapruner recompress`"):
        config_file.read(ROOT / "configs/recompress.yaml", [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (COMPARED.replace("fisher", "fischer"), ["'comparison.methods'", "did you mean 'fisher'"]),
        (COMPARED.replace("ratios", "ratio"), ["'comparison.ratio'", "'ratios'"]),
        (COMPARED.replace("0.5", "1.5"), ["'comparison.ratios.1' is 1.5"]),
        (COMPARED.replace("0.5", "0.2"), ["'comparison.ratios'", "twice"]),
        (COMPARED.replace("0.5]", "0.5], at_ratio: {0.4: {}}"), ["at_ratio", "0.4"]),
        (
            COMPARED.replace("0.5]", "0.5], at_ratio: {0.5: {protect_frst: 1}}"),
            ["'comparison.at_ratio.0.5.protect_frst'", "'protect_first'"],
        ),
        (FILE + "  comparison: [fisher]\n", ["'parameters.comparison' is"]),
        (PORTABLE_HEADS, ["layout per_layer", "'pruning'", "different head counts"]),
        (PORTABLE_WIDTHS, ["ratio 0.5", "multiple of 256, got 8"]),
        (FILE + "  comparisn: {}\n", ["'parameters.comparisn'"]),
    ],
)
def test_a_mistake_in_a_comparison_is_one_line(
    tmp_path: Path, text: str, wanted: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        compared(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    for part in wanted:
        assert part in message


def test_overrides_are_yaml_values_in_the_content_and_the_configuration(tmp_path: Path) -> None:
    values, config = read(
        tmp_path,
        FILE,
        "pruning.ratio=0.3",
        "evaluation.tasks=[a, b]",
        "registry.alias=null",
        "calibration.source=[a.txt, b.txt]",
    )
    assert config.pruning.ratio == 0.3
    assert config.evaluation.tasks == ("a", "b")
    assert config.registry.alias is None
    assert config.calibration.source == ("a.txt", "b.txt")
    assert values["parameters"]["config"]["pruning"] == {"ratio": 0.3}
    assert yaml.safe_load(yaml.safe_dump(values)) == values


def test_an_override_may_set_what_the_file_lacks(tmp_path: Path) -> None:
    text = FILE.replace("    registry: {name: mine-pruned}\n", "")
    assert "'registry' is missing" in refusal(tmp_path, text)
    assert read(tmp_path, text, "registry.name=other")[1].registry.name == "other"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (FILE.replace("name: mine\n", "nam: mine\n"), ["'nam'", "'name'"]),
        (FILE.replace("{source: model}", "{sorce: model}"), ["'model.sorce'", "'source'"]),
        (FILE + "enable_cahe: false\n", ["'enable_cahe'", "'enable_cache'"]),
        (FILE + "steps:\n  search:\n    enable_cahe: false\n", ["steps.search.enable_cahe"]),
        (FILE + "settings:\n  docker: {requirement: [a]}\n", ["settings.docker.requirement"]),
        (FILE + "retry: {max_retry: 3}\n", ["retry.max_retry", "'max_retries'"]),
        (FILE.replace("  config:", "  confg:"), ["'parameters.confg'", "'config'"]),
        (FILE + "    name: twice\n", ["'name' is set twice", "line 8"]),
        ("parametres: {}\n", ["'parametres'", "'parameters'"]),
        ("", ["empty"]),
        ("a: [", ["not valid YAML"]),
        ("parameters: {config: [1]}", ["a list"]),
        ("!!python/object/apply:os.getcwd []", ["not valid YAML"]),
    ],
)
def test_an_unknown_key_or_invalid_yaml_is_refused(
    tmp_path: Path, text: str, wanted: list[str]
) -> None:
    message = refusal(tmp_path, text)
    assert all(word in message for word in wanted), message


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("pruning.rato=0.2", ["'pruning.rato'", "'ratio'"]),
        ("pruning.ratio=1.5", ["'pruning.ratio' is 1.5"]),
        ("pruning.ratio", ["KEY=VALUE"]),
        ("name.x=1", ["'name' is a text, not a section"]),
        ("pruning.ratio=[", ["not valid YAML"]),
        ("registry.alias=Latest", ["'registry.alias' is 'Latest'", "'candidate'"]),
        ("registry.alias=V12", ["'registry.alias' is 'V12'", "'candidate'"]),
        ("registry.alias=v1.2", ["'registry.alias' is 'v1.2'", "no '.'"]),
        ("search.trials=3", ["'search.trials' is 3"]),
        ("model.trust_remote_code=true", ["unknown key 'model.trust_remote_code'"]),
    ],
)
def test_overrides_are_as_strict_as_the_file(
    tmp_path: Path, override: str, wanted: list[str]
) -> None:
    message = refusal(tmp_path, FILE, override)
    assert all(word in message for word in wanted), message


@pytest.mark.parametrize("value", ["5", "[]", "[a.txt, 5]", "{a: b}"])
@pytest.mark.parametrize(
    "setting", ["calibration.source", "calibration.objective_source", "finetune.source"]
)
def test_an_invalid_text_source_is_one_mistake(tmp_path: Path, setting: str, value: str) -> None:
    message = refusal(tmp_path, FILE, f"{setting}={value}")
    shown = yaml.safe_load(value)
    assert f"with --set: '{setting}' is {shown!r}: " in message
    assert ";" not in message


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 6\)"):
        config_file.read(path, [])
    with pytest.raises(UserError, match="can't be read: Is a directory"):
        config_file.read(tmp_path, [])


def test_our_mistakes_are_reported_before_those_in_zenmls_keys(tmp_path: Path) -> None:
    text = FILE.replace("name: mine\n", "nam: mine\n") + "enable_cahe: false\n"
    message = refusal(tmp_path, text)
    assert "'nam'" in message
    assert "enable_cahe" not in message
    text = COMPARED.replace("fisher", "fischer") + "enable_cahe: false\n"
    with pytest.raises(UserError, match="fischer"):
        compared(tmp_path, text)


REPORT = {"provenance": {"config": {"evaluation": {"gate": {"size_ratio": 0.9}}}}}


def test_a_gate_comes_from_the_run_the_file_or_an_override(tmp_path: Path) -> None:
    assert config_file.read_gate(REPORT, None, []).size_ratio == 0.9
    limit = "evaluation.gate.agreement=0.5"
    gate = config_file.read_gate(REPORT, None, [limit])
    assert (gate.size_ratio, gate.agreement) == (0.9, 0.5)
    assert REPORT["provenance"]["config"]["evaluation"]["gate"] == {"size_ratio": 0.9}
    path = tmp_path / "run.yaml"
    path.write_text(FILE + "    evaluation: {gate: {kl_divergence: 0.1}}\n")
    gate = config_file.read_gate(REPORT, path, [limit])
    assert (gate.size_ratio, gate.kl_divergence, gate.agreement) == (None, 0.1, 0.5)
    path.write_text(FILE)
    with pytest.raises(UserError, match="sets no gate"):
        config_file.read_gate(REPORT, path, [])


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_do_not_make_a_small_file_large(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match="aliases make more than"):
        config_file.load(tmp_path / "run.yaml")


def test_aliases_that_name_a_value_twice_are_read(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}\n")
    assert config_file.load(tmp_path / "run.yaml") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }


@pytest.mark.parametrize(
    "override",
    [
        "reconstruction.ridge=.inf",
        "search.objective={kl: .nan}",
        "finetune.learning_rate=.inf",
        "evaluation.gate={kl_divergence: .nan}",
        "pruning.ratio=.nan",
        "finetune.warmup_steps=1000000",
        "evaluation.prompt_tokens=[10000000]",
    ],
)
def test_numbers_without_bound_are_refused(override: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, FILE, override)
    assert override.partition("=")[0].rpartition(".")[2] in message
