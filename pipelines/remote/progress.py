"""The progress of a run elsewhere: states of its steps as they change, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse, StepRunResponse
from zenml.steps.heartbeat import is_heartbeat_unhealthy

from adapruner.errors import UserError
from pipelines.errors import FailedRunError

if TYPE_CHECKING:
    from zenml.orchestrators import BaseOrchestrator

POLL_SECONDS = 3.0
POLLS_OF_ORCHESTRATOR = 10
"""Every so many polls the orchestrator is asked as well: a run whose pods are gone never ends."""
PAGE_SIZE = 200
USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}"


def follow(
    run: UUID, orchestrator: BaseOrchestrator, show: Callable[[str, str], object]
) -> PipelineRunResponse:
    """Waits for the end of a run; `show(step, state)` is called at each change.

    Raises FailedRunError for a run that did not complete, and UserError where a step raised one.
    """
    states: dict[str, str] = {}
    lost, polls = 0, 0
    while True:
        current = Client().get_pipeline_run(run)
        for step in _steps(run):
            if states.get(step.name) != step.status.value:
                states[step.name] = step.status.value
                show(step.name, step.status.value)
        if current.status.is_finished:
            break
        polls += 1
        if polls % POLLS_OF_ORCHESTRATOR == 0:
            lost = lost + 1 if _has_ended(orchestrator, current) else 0
            if lost > 1:
                break
        time.sleep(POLL_SECONDS)
    if current.status != ExecutionStatus.COMPLETED:
        raise _failure(current, orchestrator)
    return current


def _steps(run: UUID) -> list[StepRunResponse]:
    page = Client().list_run_steps(pipeline_run_id=run, sort_by="asc:created", size=PAGE_SIZE)
    return list(page.items)


def _has_ended(orchestrator: BaseOrchestrator, run: PipelineRunResponse) -> bool:
    """Whether a run that ZenML's server takes for running has ended: the orchestrator knows, or one
    of its steps shows no life."""
    try:
        status, _ = orchestrator.fetch_status(run)
    except NotImplementedError:
        return any(map(_is_silent, _steps(run.id)))
    return status is not None and status.is_finished


def _is_silent(step: StepRunResponse) -> bool:
    """Whether a running step has sent no heartbeat for the step's `heartbeat_healthy_threshold`."""
    return is_heartbeat_unhealthy(
        step.id, step.status, step.latest_heartbeat, step.start_time, step.heartbeat_threshold
    )


def _failure(run: PipelineRunResponse, orchestrator: BaseOrchestrator) -> Exception:
    steps = _steps(run.id)
    failed = [step for step in steps if step.status == ExecutionStatus.FAILED]
    if not failed:
        return _failure_without_step(run, steps, orchestrator)
    step = Client().get_run_step(failed[0].id)
    if (error := step.exception_info) is not None and USER_ERROR in (error.source or ""):
        return UserError(error.message or error.traceback.strip().splitlines()[-1])
    others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    reason = f": {(error.message or '').splitlines()[0]}" if error and error.message else ""
    return FailedRunError(
        f"the step {step.name}{others} of the run {run.name} failed{reason}; its log: "
        f"{_log_of(step, run, orchestrator)}"
    )


def _failure_without_step(
    run: PipelineRunResponse, steps: list[StepRunResponse], orchestrator: BaseOrchestrator
) -> FailedRunError:
    where = _kubectl(orchestrator, f"run_id={run.id}") or f"see {run.id} in ZenML"
    silent = next(filter(_is_silent, steps), None)
    if silent is None:
        return FailedRunError(
            f"the run {run.name} is {run.status.value}, and no step has failed; {where}"
        )
    return FailedRunError(
        f"the step {silent.name} of the run {run.name} has shown no life for "
        f"{silent.heartbeat_threshold} minutes: its pod is gone, or can't reach ZenML; {where}"
    )


def _log_of(step: StepRunResponse, run: PipelineRunResponse, orchestrator: BaseOrchestrator) -> str:
    """Where the log of a step is: in the artifact store, else with its pod."""
    uris = [log.uri for log in step.log_collection or [] if log.uri]
    return _kubectl(orchestrator, f"run_id={run.id},step_name={step.name}") or ", ".join(uris)


def _kubectl(orchestrator: BaseOrchestrator, selector: str) -> str | None:
    namespace = getattr(orchestrator.config, "kubernetes_namespace", None)
    if orchestrator.flavor != "kubernetes" or namespace is None:
        return None
    return f"kubectl --namespace {namespace} logs --tail=-1 --selector {selector}"
