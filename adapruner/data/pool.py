"""The pool's files: the five splits and their summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from adapruner.data.contamination import Part
from adapruner.data.samples import Tokens

Row = dict[str, str]


@dataclass
class Pool:
    """The five splits, as they are filled one after the other.

    `calibration` [N, T], `source` [N] (the index in calibration.source each sample is of), `update`
    [U, T] (those samples and more of their split), `objective` [M, T] and `held_out` [H, T] are
    int32. `available` and `documents` say, by split, how many samples (rows, texts) it was chosen
    from, and how many documents the chosen are of.
    """

    calibration: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    source: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    update: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    objective: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    held_out: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 0), np.int32))
    finetune: list[Row] = field(default_factory=list)
    test: dict[str, str] = field(default_factory=dict)
    available: dict[str, int] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)


def write(
    pool: Pool, parts: Sequence[Part], tokens: Tokens, settings: dict[str, Any], out: Path
) -> None:
    """Write `pool` to the directory `out`; `settings` open the summary."""
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pool.finetune)
    save_file(
        {
            "calibration": pool.calibration,
            "source": pool.source,
            "update": pool.update,
            "objective": pool.objective,
            "held_out": pool.held_out,
        },
        out / "pool.safetensors",
    )
    (out / "finetune.jsonl").write_text(rows, encoding="utf-8")
    _write_json(out / "test.json", pool.test)
    content = {
        "calibration": pool.calibration.tobytes(),
        "objective": pool.objective.tobytes(),
        "held_out": pool.held_out.tobytes(),
        "finetune": rows.encode(),
        "test": json.dumps(pool.test).encode(),
    }
    used = {
        "calibration": (len(pool.calibration), pool.calibration.size),
        "objective": (len(pool.objective), pool.objective.size),
        "held_out": (len(pool.held_out), pool.held_out.size),
        "finetune": (
            len(pool.finetune),
            tokens.count("\n".join(row.values()) for row in pool.finetune),
        ),
        "test": (len(pool.test), tokens.count(pool.test.values())),
    }
    splits = {
        split: {
            "available": pool.available[split],
            "documents": pool.documents[split],
            "used": used[split][0],
            "tokens": used[split][1],
            "sha256": hashlib.sha256(content[split]).hexdigest(),
        }
        for split in content
    }
    sources = [_describe(part, index, pool) for index, part in enumerate(parts)]
    summary = {**settings, "tokenizer": tokens.describe(), "sources": sources, "splits": splits}
    _write_json(out / "summary.json", summary)


def _describe(part: Part, index: int, pool: Pool) -> dict[str, Any]:
    told = {
        "setting": part.setting,
        "given": part.source.given,
        "content_hash": part.source.content_hash,
        **asdict(part.counts),
    }
    # The calibration sources are the first parts, in the order that `source` counts them in.
    if part.setting == "calibration.source":
        told["used"] = int((pool.source == index).sum())
    return told


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
