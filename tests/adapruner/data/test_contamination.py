"""Text that stands in two splits is found and refused, and nothing else is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from adapruner.errors import UserError
from adapruner.data.overlap import normalise, overlapping
from tests.adapruner.data.pools import SMALL, TEST, build, jsonl, save_tokenizer, sentences

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared data absent")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "checkpoint")


ROLES: dict[str, tuple[str, str]] = {
    "calibration_objective": ("calibration.source", "calibration.objective_source"),
    "calibration_finetune": ("calibration.source", "finetune.source"),
    "calibration_test": ("calibration.source", "evaluation.texts.test"),
    "objective_test": ("calibration.objective_source", "evaluation.texts.test"),
    "finetune_test": ("finetune.source", "evaluation.texts.test"),
}


@pytest.mark.parametrize("name", ROLES)
def test_text_in_two_splits_is_refused(name: str, checkpoint: Path, tmp_path: Path) -> None:
    texts = {
        "calibration.source": sentences(20, seed=1),
        "calibration.objective_source": sentences(20, seed=2),
        "finetune.source": sentences(20, seed=3),
        "evaluation.texts.test": sentences(20, seed=4),
    }
    first, second = ROLES[name]
    # The copy differs in case and spaces, and stands within a longer text.
    copy = texts[first][7].title().replace(" ", "  \n")
    texts[second][3] = "Something before it. " + copy + " and something behind it."
    paths = {setting: jsonl(tmp_path / f"{setting}.jsonl", made) for setting, made in texts.items()}
    with pytest.raises(UserError) as error:
        build(
            checkpoint,
            tmp_path / "out",
            {
                "source": paths["calibration.source"],
                "objective_source": paths["calibration.objective_source"],
                **SMALL,
            },
            {"source": paths["finetune.source"]},
            {"texts": {"test": paths["evaluation.texts.test"]}, **TEST},
        )
    message = str(error.value)
    assert f"{first} {paths[first]} and {second} {paths[second]} overlap: 1 of 20" in message
    assert texts[first][7][:40] in message
    assert list((tmp_path / "out").iterdir()) == []


def test_one_content_in_two_roles_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    copy = jsonl(tmp_path / "b.jsonl", sentences(60))
    with pytest.raises(UserError, match="are the same text"):
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, {"source": copy})


def test_two_tests_may_share_text(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    test = jsonl(tmp_path / "b.jsonl", sentences(60, seed=1))
    evaluation = {"texts": {"one": test, "two": test}, **TEST}
    build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=evaluation)


def test_overlap_is_found_fast_in_large_texts() -> None:
    records = [normalise(text) for text in sentences(20_000, words=80)]
    text = normalise(" ".join(sentences(2500, seed=1, words=80)))
    assert len(text) > 1_300_000
    started = time.perf_counter()
    assert overlapping(records, [text]) == []
    planted = text[:500_000] + records[123][5:-5] + text[500_000:]
    assert overlapping(records, [planted]) == [123]
    assert time.perf_counter() - started < 10


def test_a_shared_phrase_is_no_overlap() -> None:
    one, other = sentences(2)
    assert overlapping([one + " " + other[:90]], [other]) == []
    assert overlapping([other[:40]], [other]) == []
    assert overlapping([other[:40]], [one, other[:40]]) == [0]


@needs_data
def test_calibrating_on_the_test_text_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    # The two forms of WikiText-2 differ: <unk> in one, the words in the other.
    calibration = {"source": str(DATA / "text/wikitext2-test.txt")}
    evaluation = {"texts": {"wikitext2": str(DATA / "text/wikitext2-raw-test.txt")}}
    with pytest.raises(UserError, match=r"wikitext2-raw-test\.txt overlap: \d+ of"):
        build(checkpoint, tmp_path / "out", calibration, evaluation=evaluation)
