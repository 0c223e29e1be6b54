"""The output folder of a run, `<output_dir>/<name>/`: replaced as a whole or not at all."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from adapruner.config import RunConfig
from adapruner.errors import UserError
from adapruner.files import Artifact, flush, link_or_copy
from adapruner.temporary import FORMER, claim_replacement
from steps.mlflow_support.tracking import redacted
from steps.zenml_support.workspace import Timing, result_files

REPORT = "report.json"
"""The file that marks a folder as the results of a compression."""
COMPARISON = "comparison.json"
"""The file that marks a folder as the results of a comparison."""
CHECKPOINT = "checkpoint"
EXPORTS = "exports"


class ModelVersionRecord(Artifact):
    """The model version of a run. `results` is the output folder, None in the copy inside it."""

    FILE: ClassVar[str] = "model_version.json"

    name: str
    version: str
    alias: str | None
    run_id: str
    tracking_uri: str
    gate: str
    results: str | None = None


def record_of(
    client: MlflowClient, version: ModelVersion, alias: str | None, run: str, gate: str
) -> ModelVersionRecord:
    """The record of a registered version; its tracking URI is without user and password."""
    return ModelVersionRecord(
        name=version.name,
        version=str(version.version),
        alias=alias,
        run_id=run,
        tracking_uri=redacted(client.tracking_uri),
        gate=gate,
    )


def directory_of(config: RunConfig) -> Path:
    """The output folder of this configuration."""
    return Path(config.output_dir) / config.name


def check_target(config: RunConfig, result_file: str = REPORT) -> None:
    """Raises UserError when the output folder holds anything but results of the same kind of run,
    and when it can't be written.

    `result_file` is REPORT for a compression and COMPARISON for a comparison.
    """
    target = directory_of(config)
    _check_writable(target.absolute().parent)
    try:
        names = [path.name for path in target.iterdir()]
        is_foreign = bool(names) and result_file not in names
    except FileNotFoundError:
        is_foreign = False
    except NotADirectoryError:
        is_foreign = True
    if is_foreign:
        raise UserError(
            f"'{target}' exists and holds no {result_file}, so it is not the result of a run of "
            "this kind and is not replaced; set another `name` or `output_dir`"
        )


def _check_writable(folder: Path) -> None:
    """The folder need not exist: the lowest of its parents that does is tried."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".adapruner-", dir=existing)).rmdir()
    except OSError as error:
        raise UserError(
            f"'{folder}' can't be written ({error.strerror}); set another `output_dir`"
        ) from None


def publish(
    config: RunConfig,
    report: Path,
    checkpoint: Path | None,
    exports: Path | None,
    record: ModelVersionRecord,
) -> Path:
    """Writes the output folder of a compression, in place of an earlier one; its absolute path.

    Without `checkpoint` and `exports` it has the report alone. Weights are hard links where the
    file system allows it. Of two runs that publish at the same
    time, the result of the later one remains.
    """

    def fill(new: Path) -> None:
        ignored = shutil.ignore_patterns(Timing.FILE)
        shutil.copytree(report, new, ignore=ignored)
        for files, name in ((checkpoint, CHECKPOINT), (exports, EXPORTS)):
            if files is not None and result_files(files):
                shutil.copytree(files, new / name, ignore=ignored, copy_function=_link_weights)
        record.write(new)

    return _publish(config, REPORT, fill)


def publish_comparison(config: RunConfig, files: Path) -> Path:
    """Writes the output folder of a comparison, in place of an earlier one; its absolute path."""
    ignored = shutil.ignore_patterns(Timing.FILE)
    return _publish(config, COMPARISON, lambda new: shutil.copytree(files, new, ignore=ignored))


def _publish(config: RunConfig, result_file: str, fill: Callable[[Path], object]) -> Path:
    """Replaces the output folder. `fill(path)` writes the new one to `path`."""
    check_target(config, result_file)
    target = directory_of(config).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = claim_replacement(target)
    new, former = temporary / "new", temporary / FORMER
    try:
        fill(new)
        _replace(target, new, former)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if not former.exists():  # it does where it can't be moved back
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        lock.release()
    shutil.rmtree(temporary, ignore_errors=True)
    return target


def _replace(target: Path, new: Path, former: Path) -> None:
    """Moves `target`, if it exists, to `former` and `new` to `target`; else restores `target`."""
    flush(new)
    while True:
        with suppress(FileNotFoundError):
            target.rename(former)
        try:
            new.rename(target)
            return
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                # Another run has published in between: its result replaced `former` and is next.
                shutil.rmtree(former, ignore_errors=True)
                continue
            if former.exists():
                former.rename(target)
            raise


def _link_weights(source: str, target: str) -> None:
    """Links weights, and copies small files, which a user may edit."""
    if source.endswith((".safetensors", ".gguf")):
        link_or_copy(source, target)
    else:
        shutil.copyfile(source, target)
