"""Old runs in the home's MLflow, and what the registry's model versions need."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from steps.cleaning.removal import Removal
from steps.mlflow_support.tracking import EXPERIMENT

PAGE_SIZE = 1000
RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")


def old_tracking_runs(client: MlflowClient, before: float) -> list[Removal]:
    """The runs of the experiment that ended before `before` (seconds since 1970), with their files.

    A run stays with its child runs if a model version, whether it has an alias or not, is from it
    or names it in its source or tags; so does the newest run of a configuration that has a version,
    to which the output folder refers.
    """
    versions = list(model_versions(client))
    needed = {id for version in versions for id in _named_runs(version)}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in _runs(client):
        groups[run.data.tags.get(MLFLOW_PARENT_RUN_ID, run.info.run_id)].append(run)
    hashes = {version.tags.get("config_hash", "") for version in versions}
    needed |= _newest(groups, hashes - {""})
    return [
        _removal(client, members)
        for group, members in groups.items()
        if max(map(_end, members)) <= before
        and needed.isdisjoint({group, *(run.info.run_id for run in members)})
    ]


def model_versions(client: MlflowClient) -> Iterator[ModelVersion]:
    """All versions of all registered models."""
    token = None
    while True:
        page = client.search_model_versions(max_results=PAGE_SIZE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def registered_folders(client: MlflowClient) -> set[Path]:
    """The folders on this machine that hold the files of model versions."""
    versions = model_versions(client)
    uris = (client.get_model_version_download_uri(v.name, v.version) for v in versions)
    return {folder for uri in uris if (folder := _local(uri))}


def _local(uri: str) -> Path | None:
    """The path of a URI on this machine; None for one in another store."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _named_runs(version: ModelVersion) -> set[str]:
    texts = (version.run_id, version.source, *version.tags.values())
    return {id for text in texts if text for id in RUN_ID.findall(text)}


def _runs(client: MlflowClient) -> Iterator[Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    token = None
    while experiment is not None:
        page = client.search_runs(
            [experiment.experiment_id], max_results=PAGE_SIZE, page_token=token
        )
        yield from page
        if not (token := page.token):
            return


def _newest(groups: dict[str, list[Run]], configurations: set[str]) -> set[str]:
    """The newest run of each of the configurations, named by their hash."""
    newest: dict[str, Run] = {}
    for run in (run for members in groups.values() for run in members):
        key = run.data.tags.get("config_hash", "")
        if key in configurations and (key not in newest or _end(run) > _end(newest[key])):
            newest[key] = run
    return {run.info.run_id for run in newest.values()}


def _removal(client: MlflowClient, members: list[Run]) -> Removal:
    name = next((r for r in members if MLFLOW_PARENT_RUN_ID not in r.data.tags), members[0])
    artifacts = (_local(run.info.artifact_uri) for run in members)
    folders = tuple(path.parent for path in artifacts if path and path.is_dir())
    ids = [run.info.run_id for run in members]
    what = f"MLflow run {name.info.run_name}"
    return Removal(what, max(map(_end, members)), folders, partial(_forget, client, ids))


def _forget(client: MlflowClient, ids: list[str]) -> None:
    """Deletes runs for good: `delete_run` alone hides them."""
    from mlflow.cli import gc  # it imports MLflow's server, which takes seconds

    for id in ids:
        client.delete_run(id)
    uri = client.tracking_uri
    options = ["--backend-store-uri", uri, "--tracking-uri", uri, "--run-ids", ",".join(ids)]
    with redirect_stdout(io.StringIO()):
        gc.main(options, standalone_mode=False)


def _end(run: Run) -> float:
    return float(run.info.end_time or run.info.start_time) / 1000
