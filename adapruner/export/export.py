"""One checkpoint in one format, written as a whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapruner.errors import UserError
from adapruner.export import format_module
from adapruner.export.contents import contents_of
from adapruner.files import flush
from adapruner.temporary import FORMER, claim_replacement


def export(
    checkpoint: Path, to: str, tensor_type: str | None, out: Path, groups: Path | None = None
) -> None:
    """Writes `checkpoint` in the format `to` as the file or directory `out`, which may be replaced.

    `tensor_type` is the type of the tensors in GGUF, where None is f16; DeciLM keeps the
    checkpoint's. `groups` is the file of a checkpoint that was trained in 4 bit, whose values q4_1
    takes over. Raises UserError for a checkpoint that the format can't hold, and for an `out`
    that is neither a GGUF file nor a DeciLM directory.
    """
    module, contents = format_module(to), contents_of(checkpoint, groups)
    module.check_supported(contents)
    _check_replaceable(checkpoint, out)
    try:
        temporary, lock = claim_replacement(out)
    except OSError as error:
        raise UserError(f"'{out}' can't be written: {error.strerror}") from None
    new, former = temporary / "new", temporary / FORMER
    try:
        module.write(checkpoint, contents, tensor_type or module.DEFAULT_TYPE, new)
        flush(new)
        if out.is_dir():  # a directory can't be replaced by a rename
            out.rename(former)
        new.rename(out)
    except BaseException:
        if former.exists() and not out.exists():
            former.rename(out)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()


def _check_replaceable(checkpoint: Path, out: Path) -> None:
    """Refuses to replace what no export wrote."""
    if not out.exists():
        return
    is_file = out.is_file() and out.suffix == ".gguf"
    config = out / "config.json"
    is_directory = config.is_file() and "block_configs" in config.read_text(encoding="utf-8")
    if not (is_file or is_directory) or out.samefile(checkpoint):
        raise UserError(f"'{out}' exists and is no export, so it is not replaced; give another -o")
