"""A compression or a comparison on a ZenML stack of the user's, with its results at home."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from adapruner.comparison.cells import ComparisonConfig, candidate_config, cells
from adapruner.config import RunConfig
from adapruner.errors import UserError
from pipelines import stack
from pipelines.local_run import execute, filter_logging, print_results, print_tables

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse
    from zenml.stack import Stack

FROM_IMAGE = {
    "allow_download_from_artifact_store": False,
    "allow_download_from_code_repository": False,
    "allow_including_files_in_images": False,
}
"""Steps run the code of the image, so that all pods compute the same cache keys."""


def compress(values: dict[str, Any], config: RunConfig, name: str, with_weights: bool) -> None:
    """Runs a compression on the stack `name`, waits, and writes its results to the output folder.

    `values` is the content of the file, `config` the configuration in it. Raises UserError for
    invalid input and FailedRunError for a run that failed.
    """
    console, started = _console(), time.perf_counter()
    submission = Submission("compress", values, config, config.search.is_searched)
    completed = _run(submission, name, console)
    print_results(console, _bring_home(completed, config, with_weights))
    _print_end(console, started)


def compare(
    values: dict[str, Any], config: RunConfig, comparison: ComparisonConfig, name: str
) -> None:
    """As `compress`, for a comparison."""
    console, started = _console(), time.perf_counter()
    plans = [candidate_config(cell, config, comparison) for cell in cells(config, comparison)]
    has_search = any(plan.search.is_searched for plan in plans)
    completed = _run(Submission("compare", values, config, has_search), name, console)
    from steps.publishing.results import publish_comparison

    files: Path = completed.steps["compare_candidates"].output.load()
    print_tables(console, publish_comparison(config, files))
    _print_end(console, started)


@dataclass(frozen=True)
class Submission:
    """A pipeline, the content of its file, and the configuration in it."""

    pipeline: str
    values: dict[str, Any]
    config: RunConfig
    has_search: bool


def _run(submission: Submission, name: str, console: Console) -> PipelineRunResponse:
    """Runs a pipeline on the stack `name` and waits for its end."""
    chosen = _use_stack(name)
    from steps.publishing.results import COMPARISON, REPORT, check_target

    result_files = {"compress": REPORT, "compare": COMPARISON}
    check_target(submission.config, result_files[submission.pipeline])
    orchestrator, values = chosen.orchestrator, submission.values
    if not orchestrator.config.is_local:
        from pipelines.remote.checks import check

        check(values, submission.config, chosen, submission.has_search)
        values = submitted_values(values, orchestrator.flavor)
    run = execute(submission.pipeline, values)
    console.print(
        f"Run {run.name} on the stack {name} ({orchestrator.flavor}). It goes on without this "
        f"command; to stop it: zenml pipeline runs stop {run.id}",
        markup=False,
    )
    from pipelines.remote.progress import follow

    def show(step: str, state: str) -> None:
        now = datetime.now(UTC).strftime("%H:%M:%SZ")
        console.print(f"{now}  {step}  {state}", markup=False)

    return follow(run.id, orchestrator, show)


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False)


def _print_end(console: Console, started: float) -> None:
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", markup=False)


def submitted_values(values: dict[str, Any], flavor: str) -> dict[str, Any]:
    """The content of the file for a cluster: the image's code, and no wait by the orchestrator.

    ZenML's own wait ends with success where the run failed, and Kubeflow's after 20 minutes.
    """
    settings = dict(values.get("settings") or {})
    settings["docker"] = {**settings["docker"], **FROM_IMAGE}
    key = "orchestrator" if "orchestrator" in settings else f"orchestrator.{flavor}"
    settings[key] = {**(settings.get(key) or {}), "synchronous": False}
    return {**values, "settings": settings}


def _use_stack(name: str) -> Stack:
    """The stack, which is the active one of this process alone."""
    stack.use_server()
    import zenml  # noqa: F401  (it configures logging when it is imported; the filter comes after)

    filter_logging()
    from zenml.client import Client
    from zenml.stack import Stack

    from pipelines.remote.checks import check_clients

    client = Client()
    names = sorted(found.name for found in client.list_stacks(size=100).items)
    if name not in names:
        raise UserError(
            f"the ZenML server in use has no stack '{name}'; it has {', '.join(names)}; log in "
            "with `zenml login URL`, or register the stack (docs/cluster.md)"
        )
    model = client.get_stack(name, allow_name_prefix_match=False)
    check_clients(model)
    os.environ["ZENML_ACTIVE_STACK_ID"] = str(model.id)
    return Stack.from_model(model)


def _bring_home(run: PipelineRunResponse, config: RunConfig, with_weights: bool) -> Path:
    """Writes the output folder from the run's artifacts; the weights only if asked for."""
    from steps.publishing.results import CHECKPOINT, ModelVersionRecord, publish

    def load(step: str) -> Path:
        path: Path = run.steps[step].output.load()
        return path

    record = ModelVersionRecord.read(load("register")).model_copy(update={"results": None})
    checkpoint = load("finetune") / CHECKPOINT if with_weights else None
    exports = load("export") if with_weights else None
    return publish(config, load("report"), checkpoint, exports, record)
