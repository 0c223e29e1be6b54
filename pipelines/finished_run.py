"""Whether a compression has nothing to do: a record of what its last run read and wrote.

ZenML decides for each step whether its result can be reused. Where that is so for all of them, a
run takes as long as the import of ZenML. This record decides the same for a whole run without
ZenML. Any doubt leaves the decision to the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from adapruner.config import RunConfig
from adapruner.dependencies import ROOT
from adapruner.errors import UserError
from adapruner.files import Artifact, file_manifest, replace_text
from adapruner.hashing import hash_directory, hash_json

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

PACKAGES = ("adapruner", "steps", "pipelines")
FOLDER = "finished"
HARDWARE = "hardware"


class FinishedRun(Artifact):
    """A run that ended without an error.

    `made_from` is the hash of everything that its results depend on, `files` has the name, size and
    modification time of what is in its output folder.
    """

    FILE: ClassVar[str] = "finished_run.json"

    ended: datetime
    made_from: str
    files: dict[str, list[int]]


def code_hash() -> str:
    """The hash of all code of the project. Take it before a run, which may outlast an edit."""
    return hash_json([hash_directory(ROOT / package) for package in PACKAGES])


def unchanged_since(
    values: Mapping[str, Any], config: RunConfig, home: Path, code: str
) -> datetime | None:
    """When the results that a run would write were written; None where it has to run.

    `values` is the content of its file, `config` the configuration in it, `code` the `code_hash`.
    """
    folder, results = _folder(config, home), Path(config.output_dir, config.name)
    # Settings of ZenML are for the pipeline, and a registered source is found through its stack.
    is_supported = [*values] == ["parameters"] and not config.model.source.startswith("models:")
    if not (is_supported and FinishedRun.exists(folder) and results.is_dir()):
        return None
    try:
        last = FinishedRun.read(folder)
        if last.files != file_manifest(results) or not _is_registered(results, home):
            return None
        is_same = last.made_from == _made_from(config, home, code, _inputs_now(config))
    except UserError:  # the run says what it is
        return None
    return last.ended if is_same else None


def remember(config: RunConfig, home: Path, code: str, run: PipelineRunResponse) -> None:
    """Records a run that has written its results; the arguments are those of `unchanged_since`.

    A run with a part that failed and that the next one tries again is not recorded.
    """
    from steps.mlflow_support.inputs import INPUTS
    from steps.zenml_support.materializer import is_complete

    outputs = {name: step.outputs for name, step in run.steps.items()}
    versions = [v for named in outputs.values() for part in named.values() for v in part]
    if not all(is_complete(version.uri) for version in versions):
        return
    read = {**outputs["resolve_source"], **outputs["describe_hardware"]}
    inputs = {name: read[name][0].content_hash or "" for name in (*INPUTS, HARDWARE)}
    record = FinishedRun(
        ended=datetime.now(UTC),
        made_from=_made_from(config, home, code, inputs),
        files=file_manifest(Path(config.output_dir, config.name)),
    )
    folder = _folder(config, home)
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / FinishedRun.FILE, record.model_dump_json())


def _is_registered(results: Path, home: Path) -> bool:
    from steps.mlflow_support import model_versions, tracking
    from steps.publishing.results import ModelVersionRecord

    if not ModelVersionRecord.exists(results):
        return False
    record = ModelVersionRecord.read(results)
    client = tracking.connect_to(tracking.configured_uri(home))
    return model_versions.is_registered(client, record.name, record.version, record.alias)


def _made_from(config: RunConfig, home: Path, code: str, inputs: Mapping[str, str]) -> str:
    from steps.mlflow_support.tracking import configured_uri

    return hash_json([config.model_dump(mode="json"), code, configured_uri(home), dict(inputs)])


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


def _folder(config: RunConfig, home: Path) -> Path:
    """The folder of the record: one for each output folder."""
    results = Path(config.output_dir, config.name).absolute()
    return home.absolute() / FOLDER / hash_json(str(results))[:16]
