"""Whether a compression has nothing to do: a record of what its last run read and wrote.

ZenML decides for each step whether its result can be reused. Where that is so for all of them, a
run takes as long as the import of ZenML. This record decides the same for a whole run without
ZenML. Any doubt leaves the decision to the pipeline.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from adapruner.config import RunConfig
from adapruner.dependencies import ROOT
from adapruner.errors import UserError
from adapruner.files import Artifact, file_manifest, read_json, replace_text
from adapruner.hashing import hash_directory, hash_file, hash_json

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

PACKAGES = ("adapruner", "steps", "pipelines")
FOLDER = "finished"
HARDWARE = "hardware"
MOST_AGE = timedelta(days=1)
"""Age up to which a record counts: `clean` removes what no run in ZenML has used for long."""

logger = logging.getLogger(__name__)


class FinishedRun(Artifact):
    """A run that ended without an error.

    `settings` is the hash of its configuration, the code and the URI of MLflow, `inputs` that of
    what it read. `files` has the name, size and modification time of what is in its output folder.
    """

    FILE: ClassVar[str] = "finished_run.json"

    ended: datetime
    settings: str
    inputs: dict[str, str]
    files: dict[str, list[int]]


def code_hash() -> str:
    """The hash of all code of the project. Take it before the run: code may be edited meanwhile."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*"))
    code = (f for f in files if f.is_file() and "__pycache__" not in f.parts and f.name[0] != ".")
    return hash_json({str(file.relative_to(ROOT)): hash_file(file) for file in code})


def unchanged_since(
    values: Mapping[str, Any], config: RunConfig, home: Path, code: str
) -> datetime | None:
    """When the results that a run would write were written; None where it has to run.

    `values` is the content of its file, `config` the configuration in it, `code` the `code_hash`.
    """
    folder, results = _folder(config, home), _results(config)
    if not (_is_supported(values, config) and FinishedRun.exists(folder) and results.is_dir()):
        return None
    try:
        last = FinishedRun.read(folder)
        is_same = (
            datetime.now(UTC) - last.ended < MOST_AGE
            and last.settings == _settings(config, home, code)
            and last.files == file_manifest(results)
            and _is_registered(results, home)
            and last.inputs == _inputs_now(config)
        )
    except (OSError, UserError):  # the pipeline reports it
        return None
    return last.ended if is_same else None


def remember(
    values: Mapping[str, Any],
    config: RunConfig,
    home: Path,
    code: str,
    run: PipelineRunResponse,
) -> None:
    """Records a `run` that has written its results; the others are as for `unchanged_since`.

    A run with a failed task is not recorded, since the next run tries the task again, nor is one
    whose results another run has replaced.
    """
    try:
        record = _record(config, home, code, run) if _is_supported(values, config) else None
        if record is not None:
            folder = _folder(config, home)
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / FinishedRun.FILE, record.model_dump_json())
    except (OSError, UserError) as error:
        logger.warning("This run is not recorded, so a repetition takes longer: %s", error)


def _record(
    config: RunConfig, home: Path, code: str, run: PipelineRunResponse
) -> FinishedRun | None:
    from steps.mlflow_support.inputs import INPUTS
    from steps.publishing.results import ModelVersionRecord
    from steps.zenml_support.materializer import is_complete

    outputs = {name: step.outputs for name, step in run.steps.items()}
    versions = [v for named in outputs.values() for part in named.values() for v in part]
    read = {**outputs["resolve_source"], **outputs["describe_hardware"]}
    results = _results(config)
    record = FinishedRun(
        ended=datetime.now(UTC),
        settings=_settings(config, home, code),
        inputs={name: read[name][0].content_hash or "" for name in (*INPUTS, HARDWARE)},
        files=file_manifest(results),
    )
    registered = ModelVersionRecord.read(outputs["register"]["model_version"][0].load())
    is_own = ModelVersionRecord.read(results).run_id == registered.run_id
    return record if is_own and all(is_complete(version.uri) for version in versions) else None


def _is_supported(values: Mapping[str, Any], config: RunConfig) -> bool:
    """Whether the file has no settings of ZenML, and the source can be read without it."""
    return [*values] == ["parameters"] and not config.model.source.startswith("models:")


def _is_registered(results: Path, home: Path) -> bool:
    from steps.mlflow_support import model_versions, tracking
    from steps.publishing.results import REPORT, ModelVersionRecord

    record = ModelVersionRecord.read(results)
    tags = model_versions.version_tags(read_json(results / REPORT))
    client = tracking.connect_to(tracking.configured_uri(home))
    return model_versions.is_registered(client, record.name, record.version, record.alias, tags)


def _settings(config: RunConfig, home: Path, code: str) -> str:
    from steps.mlflow_support.tracking import configured_uri

    return hash_json([config.model_dump(mode="json"), code, configured_uri(home)])


def _inputs_now(config: RunConfig) -> dict[str, str]:
    """The content hashes of what the steps that are never cached would write now, by name."""
    from adapruner.efficiency.latency_table import describe_hardware
    from steps.mlflow_support.inputs import INPUTS, write_inputs

    with TemporaryDirectory() as temporary:
        folders = {name: Path(temporary, name) for name in (*INPUTS, HARDWARE)}
        for folder in folders.values():
            folder.mkdir()
        describe_hardware(config.model.device_config).write(folders[HARDWARE])
        inputs = (folders[name] for name in INPUTS)
        write_inputs(config, *inputs, has_search=config.search.is_searched)
        return {name: hash_directory(folder) for name, folder in folders.items()}


def _results(config: RunConfig) -> Path:
    return Path(config.output_dir, config.name)


def _folder(config: RunConfig, home: Path) -> Path:
    """The folder of the record: one for each output folder."""
    return home.absolute() / FOLDER / hash_json(str(_results(config).absolute()))[:16]
