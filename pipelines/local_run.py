"""Runs of a pipeline on the local stack: setup, execution, and the output of a compression."""

from __future__ import annotations

import gc
import importlib
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from adapruner.config import RunConfig
from adapruner.config.parsing import nearest
from adapruner.config.pruning import RATIO_BASES
from adapruner.errors import UserError
from adapruner.files import read_json
from pipelines import finished_run, stack
from pipelines import home as homes
from pipelines.errors import explain

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

PROGRESS = re.compile(r"Using cached version|has started|has finished in|its step runs again")
"""The messages of ZenML about the progress of a run."""


def compress(values: dict[str, Any], config: RunConfig, home: Path) -> None:
    """Runs a compression unless nothing has changed since its last run; prints the results.

    `values` is the content of the file, `config` the configuration in it. Raises what a step
    raised: UserError for invalid input.
    """
    code = finished_run.code_hash()
    with imports():
        from adapruner.models.storage.sources import check_source  # it imports torch

    check_source(config.model)
    console = Console(soft_wrap=True, highlight=False)
    started = time.perf_counter()
    _print_settings(console, config, home)
    _print_costs(console, config, home)
    enter(home)
    unchanged_since = finished_run.unchanged_since(values, config, home, code)
    results = Path(config.output_dir, config.name)
    if unchanged_since is None:
        prepare(home)
        run = execute("compress", values)
        print_results(console, results)
        finished_run.remember(values, config, home, code, run)
    else:
        when = f"{unchanged_since.astimezone():%Y-%m-%d %H:%M}"
        console.print(f"Nothing has changed since the run of {when}, so no step runs.")
        print_results(console, results)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", markup=False)


def enter(home: Path) -> None:
    """Makes this process one that uses `home` until it ends, and imports MLflow: seconds."""
    stack.use_home(home)
    with homes.exclusive(home):
        homes.enter(home.absolute())
    with imports():
        importlib.import_module("mlflow")


def prepare(home: Path) -> None:
    """Sets up ZenML in this process, on the stack in `home`. The first call takes seconds.

    Until the process ends, it counts as a user of the home.
    """
    with imports():  # of MLflow, of the schemas of the stores
        import_zenml(home)
        with homes.exclusive(home):
            homes.enter(home.absolute())
            stack.ensure_stack(home)


@contextmanager
def imports() -> Iterator[None]:
    """Imports without garbage collection: what they make stays.

    To look for garbage in it, then and later, takes a tenth of a cached run.
    """
    was_enabled = gc.isenabled()
    if was_enabled:
        gc.collect()  # what an earlier run in this process left must not stay
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def import_zenml(home: Path) -> None:
    """Imports ZenML for the stores of a home, and filters what it logs. It takes seconds."""
    stack.use_home(home)
    with imports():
        import zenml  # noqa: F401  (it configures logging when it is imported; the filter comes after)
        from zenml.integrations.constants import SKLEARN
        from zenml.integrations.registry import integration_registry

        # No step returns an object of scikit-learn, which a pipeline would import: two seconds.
        integration_registry.integrations.pop(SKLEARN, None)
    filter_logging()


def execute(name: str, values: dict[str, Any]) -> PipelineRunResponse:
    """Runs or submits the pipeline `pipelines.<name>.<name>` on the active stack.

    `values` is the content of its file. Raises UserError for a step that the pipeline lacks.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    modes = Client().active_stack.orchestrator.supported_execution_modes
    with configured(name, values) as pipeline:
        if ExecutionMode.FAIL_FAST in modes:  # Kubeflow's lacks it
            pipeline.configure(execution_mode=ExecutionMode.FAIL_FAST)
        run: PipelineRunResponse = pipeline()
    return run


@contextmanager
def configured(name: str, values: dict[str, Any], **options: Any) -> Iterator[Any]:
    """The pipeline `pipelines.<name>.<name>`, with the content of its file, to be called.

    `options` are those of ZenML's `with_options`. Raises UserError for settings of a step that the
    pipeline does not have, which ZenML would ignore.
    """
    with imports():
        pipeline = getattr(importlib.import_module(f"pipelines.{name}"), name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.yaml")
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        prepared = pipeline.with_options(config_path=str(file), **options)
        if named := values.get("steps"):
            prepared.prepare()
            steps = sorted(prepared.invocations)
            for step in named:
                if step not in steps:
                    raise UserError(f"unknown key 'steps.{step}'{nearest(str(step), steps)}")
        yield prepared


def _print_settings(console: Console, config: RunConfig, home: Path) -> None:
    share = f"{config.pruning.ratio:.0%} of {RATIO_BASES[config.pruning.ratio_of]}"
    console.print(
        f"Compress {config.model.source}: remove {share}, layout {config.pruning.layout}, "
        f"{config.search.trials} trials, fine-tune {config.finetune.method}.\n"
        "Steps that are unchanged since an earlier run are not repeated.\n"
        f"Stores: {home.absolute()}  Results: {Path(config.output_dir, config.name)}/",
        markup=False,
    )


def _print_costs(console: Console, config: RunConfig, home: Path) -> None:
    """Says what the run takes. It takes seconds, which only a first run should spend."""
    if Path(config.output_dir, config.name, "report.json").exists():
        return
    from pipelines import estimate

    for line in estimate.summary(config, home):
        console.print(line, markup=False)


def print_results(console: Console, results: Path) -> None:
    """Prints the report in an output folder, the files of the folder, and the model version."""
    from adapruner.report.terminal import report_summary
    from steps.publishing.results import ModelVersionRecord

    version = ModelVersionRecord.read(results)
    console.print(report_summary(read_json(results / "report.json")))
    for name in ("report.html", "report.json", "plan.json", "checkpoint"):
        if (results / name).exists():
            console.print(f"  {results / name}", markup=False)
    alias = f"@{version.alias}" if version.alias else "(no alias)"
    console.print(
        f"  models:/{version.name}/{version.version} {alias} in {version.tracking_uri}",
        markup=False,
    )


def print_tables(console: Console, results: Path) -> None:
    """Prints the tables in an output folder, and the files of the folder."""
    from adapruner.comparison.table import tables

    for table in tables(read_json(results / "comparison.json")):
        console.print(table)
    for name in ("comparison.md", "comparison.json", "comparison.svg", "comparison.png"):
        console.print(f"  {results / name}", markup=False)


def filter_logging() -> None:
    """Keeps messages about the progress of the run and warnings of this project."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_shown)
    for name in ("alembic", "httpx", "mlflow", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _is_shown(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] and explain(record.exc_info[1]):
        return False
    if record.name.startswith("zenml"):
        return record.levelno < logging.ERROR and bool(PROGRESS.search(record.getMessage()))
    return record.levelno >= logging.WARNING or record.name.startswith(("steps", "pipelines"))
