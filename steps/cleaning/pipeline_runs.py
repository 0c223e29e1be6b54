"""Old runs of ZenML's pipelines, and the artifacts that no other run uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC
from functools import partial
from pathlib import Path
from uuid import UUID

from zenml.client import Client
from zenml.models import ArtifactVersionResponse, PipelineRunResponse, StepRunResponse
from zenml.utils.pagination_utils import depaginate

from adapruner.errors import UserError
from steps.cleaning.removal import Removal
from steps.publishing.results import ModelVersionRecord
from steps.zenml_support.cache import PAGE_SIZE
from steps.zenml_support.materializer import DATA, DirectoryMaterializer


def old_runs(before: float) -> list[Removal]:
    """The runs that ended before `before` (seconds since 1970), each with the artifacts it made.

    A run stays as long as a later run reuses one of its results, so that this one stays cached.
    No process may run in the home: a run without an end counts as ended.
    """
    runs = depaginate(Client().list_pipeline_runs, size=PAGE_SIZE)
    steps = depaginate(Client().list_run_steps, size=PAGE_SIZE, hydrate=True)
    made_by = {step.id: step.pipeline_run_id for step in steps}
    kept = {run.id for run in runs if _end(run) > before}
    kept |= {
        made_by[step.original_step_run_id]
        for step in steps
        if step.pipeline_run_id in kept and step.original_step_run_id in made_by
    }
    used = {id for step in steps if step.pipeline_run_id in kept for id in _artifacts_of(step)}
    going = defaultdict(list)
    for version in _artifact_versions():
        if version.id not in used and _made(version) <= before:
            going[version.producer_pipeline_run_id].append(version)
    removals = [_removal(run, going.pop(run.id, [])) for run in runs if run.id not in kept]
    orphans = [version for versions in going.values() for version in versions]
    return removals + ([_removal(None, orphans)] if orphans else [])


def output_folders() -> set[Path]:
    """The folders in which runs of this home have published results."""
    folders = set()
    for version in _artifact_versions():
        try:
            record = ModelVersionRecord.read(Path(version.uri, DATA))
        except UserError:  # another artifact
            continue
        if record.results is not None:
            folders.add(Path(record.results).parent)
    return folders


def _artifact_versions() -> list[ArtifactVersionResponse]:
    return depaginate(
        Client().list_artifact_versions,
        artifact_store_id=Client().active_stack.artifact_store.id,
        materializer=f"contains:{DirectoryMaterializer.__name__}",
        size=PAGE_SIZE,
    )


def _artifacts_of(step: StepRunResponse) -> Iterator[UUID]:
    for inputs in step.inputs.values():
        yield from (version.id for version in inputs)
    for outputs in step.outputs.values():
        yield from (version.id for version in outputs)


def _removal(run: PipelineRunResponse | None, versions: list[ArtifactVersionResponse]) -> Removal:
    what = f"run {run.name}" if run else "artifacts of no run"
    when = _end(run) if run else max(map(_made, versions))
    # A URI is STEP/ARTIFACT/RUN/ID, and nothing else is in the folder RUN.
    paths = tuple(Path(version.uri).parent for version in versions)
    return Removal(what, when, paths, partial(_forget, run, versions))


def _forget(run: PipelineRunResponse | None, versions: list[ArtifactVersionResponse]) -> None:
    store = Client().zen_store
    if run is not None:
        store.delete_run(run.id)
    for version in versions:
        store.delete_artifact_version(version.id)


def _end(run: PipelineRunResponse) -> float:
    return (run.end_time or run.created).replace(tzinfo=UTC).timestamp()


def _made(version: ArtifactVersionResponse) -> float:
    return version.created.replace(tzinfo=UTC).timestamp()
