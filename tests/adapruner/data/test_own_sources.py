"""Splits with a source of their own have its text, and no other split has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapruner.errors import UserError
from tests.adapruner.data.pools import SMALL, TEST, build, decoded, jsonl, sentences


def write_alpaca(folder: Path, rows: list[dict[str, str]]) -> str:
    file = folder / "alpaca.json"
    file.write_text(json.dumps(rows))
    return str(file)


def test_finetuning_rows_are_the_distinct_rows_of_their_source(
    checkpoint: Path, tmp_path: Path
) -> None:
    rows = [{"instruction": f"Do {i}.", "input": "", "output": t} for i, t in enumerate("abc")]
    empty = {"instruction": "", "input": "", "output": " "}
    finetune = {"source": write_alpaca(tmp_path, [*rows, rows[0], empty])}
    source = jsonl(tmp_path / "t.jsonl", sentences(40))
    calibration = {"source": source, **SMALL}
    built = build(checkpoint, tmp_path / "out", calibration, finetune, TEST)
    assert sorted(map(str, built.finetune)) == sorted(map(str, rows))
    summary = built.summary.sources[1]
    assert (summary.setting, summary.uri) == ("finetune.source", finetune["source"])
    assert (summary.read, summary.too_short, summary.duplicate, summary.kept) == (5, 1, 1, 3)


def test_a_test_file_is_in_the_pool_unchanged(checkpoint: Path, tmp_path: Path) -> None:
    text = " \n" + "\n\n".join(sentences(20, seed=2))
    (tmp_path / "test.txt").write_text(text)
    source = jsonl(tmp_path / "t.jsonl", sentences(40))
    evaluation = {"texts": {"Mine": str(tmp_path / "test.txt")}, **TEST}
    calibration = {"source": source, **SMALL}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=evaluation)
    assert built.test == {"Mine": text}
    assert built.summary.sources[-1].setting == "evaluation.texts.Mine"


def test_short_records_of_the_objective_source_are_joined_to_windows(
    checkpoint: Path, tmp_path: Path
) -> None:
    lines = sentences(200, seed=1, words=4)
    (tmp_path / "objective.txt").write_text("\n".join(lines))
    source = jsonl(tmp_path / "t.jsonl", sentences(40))
    calibration = {"source": source, "objective_source": str(tmp_path / "objective.txt"), **SMALL}
    pool = build(checkpoint, tmp_path / "out", calibration, evaluation=TEST).pool
    joined = "\n\n".join(lines)
    windows = decoded(checkpoint, pool.objective) + decoded(checkpoint, pool.held_out)
    assert len(set(windows)) == len(windows) == 8
    assert all(window in joined for window in windows)


def test_too_little_text_for_the_objective_is_refused_with_the_counts(
    checkpoint: Path, tmp_path: Path
) -> None:
    objective = jsonl(tmp_path / "objective.jsonl", sentences(5, seed=1))
    source = jsonl(tmp_path / "t.jsonl", sentences(40))
    calibration = {"source": source, "objective_source": objective, **SMALL}
    with pytest.raises(UserError, match=r"objective_source.*there are 5 .*objective_tokens"):
        build(checkpoint, tmp_path / "out", calibration, evaluation=TEST)


def test_a_second_copy_of_a_finetuning_source_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(5, seed=1)
    one = jsonl(tmp_path / "one.jsonl", texts)
    copy = jsonl(tmp_path / "copy.jsonl", texts[::-1])
    source = jsonl(tmp_path / "t.jsonl", sentences(40))
    with pytest.raises(UserError, match=rf"{copy} has only empty or duplicate texts"):
        build(
            checkpoint, tmp_path / "out", {"source": source, **SMALL}, {"source": [one, copy]}, TEST
        )
