"""Text that occurs in two splits is detected and refused, and nothing else is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from adapruner.data.contamination import contaminated
from adapruner.data.samples import normalise
from adapruner.errors import UserError
from tests.adapruner.data.pools import DATA, SMALL, TEST, build, jsonl, needs_data, sentences

PAIRS: list[tuple[str, str]] = [
    ("calibration.source", "calibration.objective_source"),
    ("calibration.source", "finetune.source"),
    ("calibration.source", "evaluation.texts.test"),
    ("calibration.objective_source", "evaluation.texts.test"),
    ("finetune.source", "evaluation.texts.test"),
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_text_in_two_splits_is_refused(
    first: str, second: str, checkpoint: Path, tmp_path: Path
) -> None:
    texts = {
        "calibration.source": sentences(20, seed=1),
        "calibration.objective_source": sentences(20, seed=2),
        "finetune.source": sentences(20, seed=3),
        "evaluation.texts.test": sentences(20, seed=4),
    }
    # The copy differs in case and spaces, and is part of a longer text.
    copy = texts[first][7].title().replace(" ", "  \n")
    texts[second][3] = "Something before it. " + copy + " and something behind it."
    paths = {name: jsonl(tmp_path / f"{name}.jsonl", content) for name, content in texts.items()}
    calibration = {
        "source": paths["calibration.source"],
        "objective_source": paths["calibration.objective_source"],
        **SMALL,
    }
    evaluation = {"texts": {"test": paths["evaluation.texts.test"]}, **TEST}
    with pytest.raises(UserError) as error:
        build(
            checkpoint,
            tmp_path / "out",
            calibration,
            {"source": paths["finetune.source"]},
            evaluation,
        )
    message = str(error.value)
    assert f"1 of 20 samples of {first} {paths[first]}" in message
    assert f"{second} {paths[second]}" in message
    assert texts[first][7][:40] in message
    assert list((tmp_path / "out").iterdir()) == []


def test_a_copy_of_one_later_window_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(20, words=600)
    source = jsonl(tmp_path / "a.jsonl", texts)
    test = sentences(1, seed=1, words=200)[0] + texts[3][1000:2000]
    evaluation = {"texts": {"mine": jsonl(tmp_path / "test.jsonl", [test])}, **TEST}
    lengths = {**SMALL, "sequence_length": 512, "min_tokens": 512}
    one = {"source": source, **lengths}
    build(checkpoint, tmp_path / "one", one, evaluation=evaluation)
    with pytest.raises(UserError, match="contamination: 1 of 80 samples"):
        build(checkpoint, tmp_path / "out", {**one, "samples_per_record": 4}, evaluation=evaluation)


def test_one_content_in_two_settings_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    copy = jsonl(tmp_path / "b.jsonl", sentences(60))
    with pytest.raises(UserError, match="are the same text"):
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, {"source": copy})


def test_two_test_texts_may_share_text(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    test = jsonl(tmp_path / "b.jsonl", sentences(60, seed=1))
    evaluation = {"texts": {"one": test, "two": test}, **TEST}
    build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=evaluation)


def test_a_copy_in_a_large_text_is_detected_in_seconds() -> None:
    records = [normalise(text) for text in sentences(20_000, words=80)]
    text = normalise(" ".join(sentences(2500, seed=1, words=80)))
    assert len(text) > 1_300_000
    started = time.perf_counter()
    assert contaminated(records, [text]) == []
    planted = text[:500_000] + records[123][5:-5] + text[500_000:]
    assert contaminated(records, [planted]) == [123]
    assert time.perf_counter() - started < 10


def test_a_shared_phrase_is_not_contamination() -> None:
    one, other = sentences(2)
    assert contaminated([one + " " + other[:90]], [other]) == []
    assert contaminated([other[:40]], [other]) == []


def test_a_sample_shorter_than_a_piece_is_compared_as_a_whole() -> None:
    one, other = sentences(2)
    assert contaminated([other[:40]], [one, other[:40]]) == [0]


@needs_data
def test_calibrating_on_the_test_text_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    # The two forms of WikiText-2 differ: <unk> in one, the words in the other.
    calibration = {"source": str(DATA / "text/wikitext2-test.txt")}
    evaluation = {"texts": {"wikitext2": str(DATA / "text/wikitext2-raw-test.txt")}}
    with pytest.raises(UserError, match=r"contamination: \d+ of .*wikitext2-raw-test\.txt"):
        build(checkpoint, tmp_path / "out", calibration, evaluation=evaluation)
