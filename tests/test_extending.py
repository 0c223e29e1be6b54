"""The examples of docs/extending.md work as they are written. Each is registered for one test."""

from __future__ import annotations

import ast
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from adapruner.config import FinetuneConfig, PlanConfig, RunConfig
from adapruner.config.parsing import parse_section
from adapruner.config.presets import presets
from adapruner.errors import UserError
from adapruner.importance import metrics
from adapruner.models import auto_classes, families
from adapruner.models.families import Family
from adapruner.models.storage.checkpoint import inspect, save_checkpoint
from adapruner.pruning import reconstruction
from adapruner.pruning.allocation import RULES, widths
from adapruner.pruning.plan import PruningPlan
from adapruner.pruning.surgery import apply
from adapruner.recovery.finetune import CHECKPOINT, RecoveryRequest, finetune
from adapruner.recovery.results import RecoveryResult
from adapruner.report import sections
from adapruner.report.page import page
from adapruner.search.inputs import SearchInputs
from adapruner.search.search import search
from pipelines import schedules
from pipelines.cli.main import main
from pipelines.schedules.scheduled_pass import ScheduledPass
from pipelines.schedules.timetable import Timetable
from tests.adapruner.conftest import Workplace, write_importance
from tests.adapruner.conftest import workplace as shared_workplace  # noqa: F401 (a fixture)
from tests.adapruner.pruning.plans import masked, plan_for
from tests.adapruner.pruning.reconstruction import test_methods as reconstruction_suite
from tests.adapruner.report.reports import build, write_stages
from tests.documents import ROOT, blocks
from tests.models import BASE, random_model, tokens

DOCUMENT = ROOT / "docs" / "extending.md"


def code_of(heading: str) -> tuple[str, str]:
    """The module that the example below a heading is written for, and its code."""
    (code,) = [block.text for block in blocks(DOCUMENT, "python") if block.heading == heading]
    path, _, _ = code.removeprefix("# ").partition("\n")
    return path.removesuffix(".py").replace("/", "."), code


def line_of(heading: str) -> str:
    """The line that the example below a heading adds to its table."""
    (line,) = [block.text for block in blocks(DOCUMENT, "diff") if block.heading == heading]
    return line.removeprefix("+").strip()


def entry_of(heading: str) -> dict[str, str]:
    """The row that the example below a heading adds to a table of names and modules."""
    entry: dict[str, str] = ast.literal_eval("{" + line_of(heading) + "}")
    return entry


def add_module(heading: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the example below a heading importable under the name that it is written for."""
    name, code = code_of(heading)
    module = types.ModuleType(name)
    exec(compile(code, f"{DOCUMENT}: {heading}", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    return module


def add_to_table(heading: str, table: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Adds the example's module and its row; returns the name of the row."""
    module = add_module(heading, monkeypatch)
    ((name, path),) = entry_of(heading).items()
    assert path == module.__name__
    monkeypatch.setitem(table, name, path)
    return name


def run_values(work: Workplace, **values: Any) -> dict[str, Any]:
    """The content of a configuration for the workplace."""
    return {
        "name": "example",
        "model": {"source": str(work.checkpoint), "device": "cpu"},
        "calibration": {"source": "text.txt"},
        "pruning": {"ratio_of": "blocks", "protect_first": 0, "protect_last": 0, "round_to": 1},
        "registry": {"name": "example"},
        **values,
    }


def plan_of(work: Workplace, config: PlanConfig, folder: Path) -> PruningPlan:
    """The plan that a search with this configuration selects on the workplace."""
    importance, out = folder / "importance", folder / "out"
    for directory in (importance, out):
        directory.mkdir()
    write_importance(work, importance)
    inputs = SearchInputs(work.checkpoint, work.pool, importance, importance, importance)
    search(inputs, config, f"sqlite:///{folder / 'studies.db'}", out)
    return PruningPlan.read(out)


@pytest.fixture
def work(shared_workplace: Workplace) -> Workplace:  # noqa: F811
    return shared_workplace


@pytest.fixture
def activation_metric(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name, code = code_of("An importance metric")
    assert name == metrics.__name__
    with monkeypatch.context() as patch:
        before = set(metrics.METRICS)
        exec(compile(code, str(DOCUMENT), "exec"), dict(vars(metrics)))
        (added,) = set(metrics.METRICS) - before
        patch.setitem(metrics.METRICS, added, metrics.METRICS.pop(added))
        presets.cache_clear()
        yield added
    presets.cache_clear()
    assert added not in metrics.METRICS


def test_metric_is_a_setting_and_a_method_and_plans(
    activation_metric: str,
    work: Workplace,
    tmp_path: Path,
) -> None:
    values = run_values(work, method=activation_metric)
    config = parse_section(RunConfig, values, "test")
    assert config.search.metric == activation_metric
    listed = CliRunner().invoke(main, ["methods"]).output
    assert any(line.split()[0] == activation_metric for line in listed.splitlines())
    plan = plan_of(work, config.plan_config, tmp_path)
    assert plan.provenance["method"] == activation_metric
    assert plan.ratio.achieved_blocks == pytest.approx(config.pruning.ratio, abs=0.01)


def test_metric_is_unknown_once_it_is_removed(work: Workplace) -> None:
    with pytest.raises(UserError, match="activation"):
        parse_section(RunConfig, run_values(work, method="activation"), "test")


def test_reconstruction_method_passes_the_suite_of_all_methods(
    work: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    name = add_to_table("A reconstruction method", reconstruction.METHODS, monkeypatch)
    values = run_values(work, reconstruction={"method": name})
    assert parse_section(RunConfig, values, "test").reconstruction.method == name
    suite = reconstruction_suite.test_method_writes_a_reproducible_checkpoint_and_leaves_its_inputs
    for what in ("channels", "ragged"):
        folder = tmp_path / what
        folder.mkdir()
        suite(name, what, folder)


def test_recovery_method_trains_what_it_says_it_trains(
    work: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    methods = importlib.import_module("adapruner.recovery").METHODS
    name = add_to_table("A recovery method", methods, monkeypatch)
    settings = FinetuneConfig(
        method=name, steps=20, batch_size=4, sequence_length=16, learning_rate=3e-2
    )
    request = RecoveryRequest(
        checkpoint=work.checkpoint,
        dense=work.checkpoint,
        teacher=tmp_path,
        pool=work.pool,
        model=work.model,
        finetune=settings,
        seed=0,
    )
    result = finetune(request, tmp_path)
    losses = [point.loss for point in result.curve]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert RecoveryResult.read(tmp_path).method == name
    before = AutoModelForCausalLM.from_pretrained(work.checkpoint).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / CHECKPOINT).state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if "norm" in key}


def test_allocation_rule_sets_the_widths_of_a_plan(
    work: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    heading = "An allocation rule"
    module = add_module(heading, monkeypatch)
    (rule,) = ast.literal_eval("[" + line_of(heading) + "]")
    assert rule == module.__name__
    monkeypatch.setattr(widths, "RULES", (*RULES[:-1], rule, RULES[-1]))
    config = parse_section(RunConfig, run_values(work, method="fisher"), "test")
    plan = plan_of(work, config.plan_config, tmp_path)
    kept = [len(layer.channels()) for layer in plan.layers]
    assert kept == sorted(kept, reverse=True)
    dense = plan.dense[0]["mlp_channels"]
    assert dense - kept[-1] == pytest.approx(3 * (dense - kept[0]), abs=3)
    assert plan.ratio.achieved_blocks == pytest.approx(config.pruning.ratio, abs=0.01)


@pytest.fixture
def example_family(monkeypatch: pytest.MonkeyPatch) -> Family:
    heading = "A model family"
    (family,) = eval(f"[{line_of(heading)}]", {"Family": Family})
    for mapping in (CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    monkeypatch.setitem(families.FAMILIES, family.model_type, family)
    auto_classes.register(family)
    return family


def test_family_is_pruned_per_layer_and_loaded_again(
    example_family: Family, tmp_path: Path
) -> None:
    model = random_model(
        BASE | {"model_type": example_family.model_type}, example_family.architecture
    )
    dense, out, ids = tmp_path / "dense", tmp_path / "out", tokens(2, 9).long()
    out.mkdir()
    model.save_pretrained(dense)
    plan = plan_for(model, "ragged")
    with masked(model, plan):
        expected = model(ids).logits
    apply(model, plan)
    save_checkpoint(model, dense, out)
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    assert type(reloaded).__name__ == example_family.per_layer_architecture
    torch.testing.assert_close(reloaded(ids).logits, expected, rtol=1e-4, atol=1e-4)
    kept = [layer.mlp_channels for layer in inspect(out).layers]
    assert kept == [len(layer.channels()) for layer in plan.layers]


def test_section_is_in_the_report_and_on_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heading = "A report section"
    stages = write_stages(tmp_path / "stages")
    before = build(stages)
    module = add_module(heading, monkeypatch)
    name = module.__name__.rpartition(".")[2]
    (section,) = eval(f"[{line_of(heading)}]", {name: module})
    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, section))
    report = build(stages)
    plan = PruningPlan.read(stages["search"])
    kept = [len(layer.channels()) for layer in plan.layers]
    assert report["extremes"] == {"widest": max(kept), "narrowest": min(kept)}
    assert f"<dt>narrowest layer</dt><dd>{min(kept)} channels</dd>" in page(report)
    assert f'id="{section.id}"' not in page(before), "a report from before the section is shown"


def test_scheduler_installs_lists_and_removes_a_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for other in list(schedules.SCHEDULERS):  # those of this machine
        monkeypatch.delitem(schedules.SCHEDULERS, other)
    name = add_to_table("A scheduler", schedules.SCHEDULERS, monkeypatch)
    module: Any = schedules.scheduler(name)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    (tmp_path / "adapruner-foreign").write_text("0 * * * * root true\n")
    planned = ScheduledPass(
        name="nightly",
        when=Timetable("0 3 * * *"),
        folder=tmp_path,
        home=tmp_path,
        command=("adapruner", "recompress", "-c", "100%.yaml"),
    )
    module.install(planned)
    assert (tmp_path / "adapruner-nightly").read_text() == module.preview(planned)
    assert r"100\%.yaml" in module.preview(planned), "cron ends a command at a bare %"
    listed = CliRunner().invoke(main, ["schedule", "list"]).output
    assert listed.split("\t")[:3] == ["nightly", name, "0 3 * * *"]
    assert module.remove("nightly")
    assert not module.remove("nightly")
    assert not module.remove("foreign")


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    headings = {block.heading for block in blocks(DOCUMENT, "python", "diff")}
    assert all(f'"{heading}"' in text for heading in headings)
