"""One compression on the local stack, from a validated configuration to the table at its end."""

from __future__ import annotations

import importlib
import json
import logging
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from adapruner.config import RunConfig
from pipelines import stack
from pipelines.errors import explain

STEPS = "resolve, load, pool, importance, search, prune, fine-tune, evaluate, report, register"
# ZenML's lines that tell how the run goes on; the others tell how ZenML works.
TOLD = re.compile(r"Using cached version|has started|has finished in|are made again")


def compress(values: dict[str, Any], config: RunConfig, home: Path) -> None:
    """Run the pipeline with the file content `values`, whose configuration is `config`.

    Raises what a step raised: UserError for what the user gave.
    """
    console = Console(soft_wrap=True, highlight=False)
    started = time.perf_counter()
    _announce(console, config, home)
    prepare(home)
    execute("compress", values)
    from steps.publishing.results import directory_of

    _show(console, directory_of(config), time.perf_counter() - started)


def prepare(home: Path) -> None:
    """Set up ZenML in this process, on the stack in `home`. The first call takes seconds."""
    stack.use_home(home)
    import zenml  # noqa: F401  (its import configures logging; ours comes after)

    _quiet_logging()
    stack.ensure_stack(home)


def execute(name: str, values: dict[str, Any]) -> None:
    """Run the pipeline `name` of the module of that name with the file content `values`.

    It runs in this process, which `prepare` has made ready.
    """
    from zenml.enums import ExecutionMode

    pipeline = getattr(importlib.import_module(f"pipelines.{name}"), name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.yaml")
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        configured = pipeline.with_options(config_path=str(file))
        configured.configure(execution_mode=ExecutionMode.FAIL_FAST)
        configured()


def _announce(console: Console, config: RunConfig, home: Path) -> None:
    share = f"{config.pruning.ratio:.0%} of {config.pruning.ratio_of} parameters"
    console.print(
        f"Compress {config.model.source}: remove {share}, layout {config.pruning.layout}, "
        f"{config.search.trials} trials, fine-tune {config.finetune.method}.\n"
        f"Steps: {STEPS}; what is unchanged since an earlier run is not computed again.\n"
        f"Stores: {home.absolute()}  Results: {Path(config.output_dir, config.name)}/",
        markup=False,
    )


def _show(console: Console, results: Path, seconds: float) -> None:
    from adapruner.report.terminal import terminal

    report = json.loads((results / "report.json").read_text(encoding="utf-8"))
    version = json.loads((results / "model_version.json").read_text(encoding="utf-8"))
    console.print(terminal(report))
    for name in ("report.html", "report.json", "plan.json", "checkpoint"):
        console.print(f"  {results / name}", markup=False)
    alias = f"@{version['alias']}" if version["alias"] else "(no alias)"
    console.print(
        f"  models:/{version['name']}/{version['version']} {alias} in {version['tracking_uri']}\n"
        f"Done in {seconds:.0f} s.",
        markup=False,
    )


def _quiet_logging() -> None:
    """Leave of ZenML's log what tells how the run goes on, and of warnings those that matter."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_telling)
    for name in ("alembic", "httpx", "mlflow", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _worth_telling(record: logging.LogRecord) -> bool:
    if record.exc_info and record.exc_info[1] and explain(record.exc_info[1]):
        return False
    if record.name.startswith("zenml"):
        return record.levelno < logging.ERROR and bool(TOLD.search(record.getMessage()))
    return record.levelno >= logging.WARNING or record.name.startswith(("steps", "pipelines"))
