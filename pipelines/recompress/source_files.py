"""Whether the files of a source version are still those that were compressed.

A registry lets anyone replace the files of a version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient

from adapruner.errors import UserError
from pipelines.recompress.jobs import CompressionJob, write_done
from steps.mlflow_support import registered_checkpoints


@dataclass(frozen=True)
class FileCheck:
    """The result of `check_source_files`.

    `content` is the hash of changed files; `problem` says why the files could not be checked.
    """

    is_same: bool
    fingerprint: str | None = None
    content: str | None = None
    problem: str | None = None


def check_source_files(
    client: MlflowClient, job: CompressionJob, verify: Literal["fingerprint", "content"]
) -> FileCheck:
    """Compares the files of a compressed source version with those that were compressed.

    With `fingerprint`, files are read only if sizes, names or times differ from the recorded ones.
    If the content is the same, the record of the source version is repaired.
    """
    record = job.record
    try:
        fingerprint = registered_checkpoints.fingerprint(job.version)
    except UserError as error:
        return FileCheck(is_same=True, problem=str(error))
    is_recorded = record and record.state == "done" and record.fingerprint == fingerprint
    if verify == "fingerprint" and is_recorded:
        return FileCheck(is_same=True)
    try:
        content = registered_checkpoints.content_hash(job.version)
    except UserError as error:
        return FileCheck(is_same=False, fingerprint=fingerprint, content=f"none ({error})")
    for compressed in job.compressed:
        if compressed.tags.get("source_hash") == content:
            write_done(client, job, compressed, fingerprint)
            return FileCheck(is_same=True)
    return FileCheck(is_same=False, fingerprint=fingerprint, content=content)


def files_changed(job: CompressionJob) -> bool:
    """Whether the fingerprint of the files differs from that of the last attempt."""
    record = job.record
    if record is None or record.fingerprint is None:
        return False
    try:
        return registered_checkpoints.fingerprint(job.version) != record.fingerprint
    except UserError:
        return False
