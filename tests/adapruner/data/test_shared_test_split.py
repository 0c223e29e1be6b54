"""The test split of calibration.source: one text for each source."""

from __future__ import annotations

from pathlib import Path

from tests.adapruner.data.pools import SMALL, TEST, build, jsonl, sentences


def test_each_source_has_a_text_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    texts = {
        jsonl(tmp_path / "Some texts.jsonl", sentences(60, seed=1)): sentences(60, seed=1),
        jsonl(tmp_path / "other" / "some_texts.jsonl", sentences(60, seed=2)): sentences(
            60, seed=2
        ),
    }
    calibration = {"source": list(texts), **SMALL}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=TEST)
    assert list(built.test) == ["some_texts", "some_texts_2"]
    for text, content in zip(built.test.values(), texts.values(), strict=True):
        assert set(text.split("\n\n")) <= set(content)
    assert built.summary.splits["test"].used == 2


def test_a_source_with_less_than_a_window_has_no_text(checkpoint: Path, tmp_path: Path) -> None:
    big = jsonl(tmp_path / "big.jsonl", sentences(60, seed=1))
    tiny = jsonl(tmp_path / "tiny.jsonl", sentences(2, seed=2, words=12))
    calibration = {"source": [big, tiny], **SMALL}
    evaluation = {"sequence_length": 64, "max_windows": 4}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=evaluation)
    assert list(built.test) == ["big"]
