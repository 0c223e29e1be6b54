"""Does a source version still hold what was compressed? Registries let anyone overwrite files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient

from adapruner.errors import UserError
from pipelines.recompress import lineage
from pipelines.recompress.lineage import Work
from steps.mlflow_support import registered_checkpoints


@dataclass(frozen=True)
class Seen:
    """What was found. `content` is a hash where files were read and are of another content."""

    same: bool
    fingerprint: str | None = None
    content: str | None = None
    problem: str | None = None


def compare(client: MlflowClient, work: Work, verify: Literal["fingerprint", "content"]) -> Seen:
    """Compare a compressed version's files with what was compressed.

    By `fingerprint`, files are read only where sizes, names or times differ from those recorded.
    Where the content is the same, record and pointer of the source version are made good.
    """
    record = work.record
    try:
        fingerprint = registered_checkpoints.fingerprint(work.version)
    except UserError as error:
        return Seen(same=True, problem=str(error))
    cheap = verify == "fingerprint"
    if cheap and record and record.state == "done" and record.fingerprint == fingerprint:
        return Seen(same=True)
    try:
        content = registered_checkpoints.content_hash(work.version)
    except UserError as error:
        return Seen(same=False, fingerprint=fingerprint, content=f"none ({error})")
    for made in work.made:
        if made.tags.get("source_hash") == content:
            lineage.finished(client, work, made, fingerprint)
            return Seen(same=True)
    return Seen(same=False, fingerprint=fingerprint, content=content)


def files_changed(work: Work) -> bool:
    """Whether the files are, by their fingerprint, no longer those of the last attempt."""
    record = work.record
    if record is None or record.fingerprint is None:
        return False
    try:
        return registered_checkpoints.fingerprint(work.version) != record.fingerprint
    except UserError:
        return False
