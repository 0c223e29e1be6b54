"""The files that a checkpoint consists of.

Only these are hashed, copied and published. A link counts where it stays inside the checkpoint, or
inside the cache of a hub, which keeps contents beside its snapshots; any other link is refused, so
that no file of this machine becomes part of a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapruner.errors import UserError, refused_as
from adapruner.files import read_json
from adapruner.models.families import Family
from adapruner.models.storage.weights import INDEX_FILE, weight_files

BRANCH = "adapter"
"""The folder of a checkpoint with an adapter that belongs to it, which is not merged."""

CONFIG_FILE = "config.json"

FAMILY_FILE = "adapruner_family.json"
"""The row of a family that is not in the table, in checkpoints of that family."""

TOKENIZER_FILES = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
        "chat_template.json",
    }
)

SMALL_FILES = TOKENIZER_FILES | {CONFIG_FILE, "generation_config.json", INDEX_FILE, FAMILY_FILE}
"""All files of a checkpoint but its weights and code."""


PLAN_FILE = "pruning_plan.json"
"""The pruning plan beside a registered checkpoint; not part of the checkpoint."""


def small_files(checkpoint: Path) -> list[Path]:
    """The config and the tokenizer's files. Raises UserError for a link to another place."""
    files = [checkpoint / name for name in sorted(SMALL_FILES) if (checkpoint / name).is_file()]
    return _checked(files, checkpoint)


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint: config, tokenizer and weights, without code.

    Raises UserError for a link to another place, and for missing weights.
    """
    return small_files(checkpoint) + _checked(weight_files(checkpoint), checkpoint)


def _checked(files: list[Path], checkpoint: Path) -> list[Path]:
    folder = checkpoint.resolve()
    # models--OWNER--NAME/snapshots/COMMIT holds links to models--OWNER--NAME/blobs.
    is_snapshot = folder.parent.name == "snapshots"
    allowed = [folder, folder.parent.parent / "blobs"] if is_snapshot else [folder]
    for file in files:
        target = file.resolve()
        if not any(target.is_relative_to(parent) for parent in allowed):
            raise UserError(
                f"'{file}' is a link to a file outside of the checkpoint; put the file itself there"
            )
    return files


def config_fields(checkpoint: Path) -> dict[str, Any]:
    """The fields of a checkpoint's config, as its file has them.

    Raises UserError for a checkpoint without a config or with quantized weights.
    """
    file = checkpoint / CONFIG_FILE
    if not file.is_file():
        raise UserError(f"'{checkpoint}' is not a checkpoint: it has no {CONFIG_FILE}")
    with refused_as(f"'{file}' is not a readable model config"):
        fields = dict(read_json(file))
    if quantization := fields.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UserError(
            f"'{checkpoint}' is quantized ({method or 'quantization_config'}); give the checkpoint "
            "in full precision, and quantize the result"
        )
    return fields


def family_beside(checkpoint: Path) -> Family | None:
    """The row of a family beside a checkpoint. Raises UserError for a file that is none."""
    file = checkpoint / FAMILY_FILE
    if not file.is_file():
        return None
    try:
        return Family(**read_json(file))
    except (TypeError, ValueError, AttributeError):
        raise UserError(f"'{file}' is not the row of a family; fetch it again") from None


def update_shares(checkpoint: Path) -> tuple[float, ...]:
    """The share of each domain in the update of a pruned checkpoint, from the plan beside it.

    Empty where there is no plan, or none with shares. Recovery needs this one value of the plan
    and can't import `pruning`, whose `PruningPlan` writes the file; so it is read from the JSON.
    """
    return tuple(_plan(checkpoint).get("update", {}).get("shares", ()))


def timed_tokens(checkpoint: Path) -> int | None:
    """Tokens at which a pruned checkpoint has a target of latency, from the plan beside it.

    None where there is no plan, or one with another target.
    """
    cost = _plan(checkpoint).get("ratio", {}).get("cost", {})
    return cost["tokens"] if cost.get("unit") == "ns" else None


def _plan(checkpoint: Path) -> dict[str, Any]:
    """The plan beside a checkpoint as a JSON value; empty where there is none."""
    file = checkpoint / PLAN_FILE
    return dict(read_json(file)) if file.is_file() else {}
