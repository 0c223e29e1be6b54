"""calibration.source fills every split that has no source of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from adapruner.errors import UserError
from tests.adapruner.data.pools import SMALL, TEST, build, decoded, jsonl, sentences


def test_too_little_text_is_refused_with_the_counts(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", [*sentences(12), "short"])
    with pytest.raises(UserError) as error:
        build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    message = str(error.value)
    assert "there are 12" in message
    assert "read 13, too short 1, duplicate 0, kept 12" in message
    assert "calibration.pool_size" in message


def test_exactly_enough_samples_suffice(checkpoint: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(8 + 4 + 4 + 1 + 1))
    built = build(checkpoint, tmp_path / "out", {"source": source, **SMALL}, evaluation=TEST)
    assert len(built.finetune) == 1


def test_documents_are_whole_in_one_split(checkpoint: Path, tmp_path: Path) -> None:
    texts = sentences(120)
    articles = [texts[i : i + 6] for i in range(0, 120, 6)]
    file = tmp_path / "wiki.txt"
    file.write_text(
        "".join(f" = Title {i} = \n\n" + "\n\n".join(a) + "\n\n" for i, a in enumerate(articles))
    )
    evaluation = {**TEST, "max_windows": None}
    calibration = {"source": str(file), **SMALL}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=evaluation)
    splits = {
        "calibration": decoded(checkpoint, built.pool.calibration),
        "objective": decoded(checkpoint, built.pool.objective),
        "held_out": decoded(checkpoint, built.pool.held_out),
        "finetune": [row["text"] for row in built.finetune],
        "test": built.test["wiki"].split("\n\n"),
    }
    article_of = {text: i for i, article in enumerate(articles) for text in article}
    documents = {
        split: {d for s in samples for text, d in article_of.items() if text.startswith(s)}
        for split, samples in splits.items()
    }
    assert sum(map(len, documents.values())) == len(set.union(*documents.values()))
    recorded = {split: built.summary.splits[split].documents for split in splits}
    assert {split: len(names) for split, names in documents.items()} == recorded
    assert len(documents["objective"]) > 1


def test_several_sources_have_equal_shares(checkpoint: Path, tmp_path: Path) -> None:
    big = jsonl(tmp_path / "big.jsonl", sentences(300, seed=1))
    small = jsonl(tmp_path / "small.jsonl", sentences(60, seed=2))
    calibration = {"source": [big, small], **SMALL}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=TEST)
    assert [source.used for source in built.summary.sources] == [4, 4]
    assert sorted(built.pool.calibration_domain) == [0] * 4 + [1] * 4
    assert [domain.name for domain in built.summary.domains] == [big, small]
    assert [domain.calibration for domain in built.summary.domains] == [4, 4]
    assert list(built.test) == ["big", "small"]


def test_domains_of_one_source_are_its_clusters(checkpoint: Path, tmp_path: Path) -> None:
    topics = [sentences(60, seed=1, words=12), sentences(60, seed=2, words=12)]
    texts = [f"{topic} {topic} {text}" for topic, t in zip("xy", topics, strict=True) for text in t]
    source = jsonl(tmp_path / "t.jsonl", texts)
    calibration = {"source": source, **SMALL, "pool_size": 16, "clusters": 2}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=TEST)
    domains = built.summary.domains
    assert [d.name.partition(":")[0] for d in domains] == ["cluster 1", "cluster 2"]
    assert sum(d.calibration for d in domains) == 16 == built.summary.sources[0].used
    assert sum(d.update for d in domains) == len(built.pool.update)
    assert domains[0].update >= domains[1].update >= domains[1].calibration > 0
    assert built.pool.domain.bincount().tolist() == [d.update for d in domains]
    whole = build(checkpoint, tmp_path / "o", {**calibration, "clusters": 1}, evaluation=TEST)
    assert [domain.name for domain in whole.summary.domains] == [source]
    assert not whole.pool.domain.any()


def test_the_update_samples_begin_with_the_pool_and_are_distinct(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = jsonl(tmp_path / "t.jsonl", sentences(120))
    calibration = {"source": source, "update_size": 20, **SMALL}
    pool = build(checkpoint, tmp_path / "out", calibration, evaluation=TEST).pool
    assert pool.update[:8].equal(pool.calibration)
    assert len({tuple(row) for row in pool.update.tolist()}) == 20


def test_windows_of_a_record_are_in_one_split_and_its_text_is_not_repeated(
    checkpoint: Path, tmp_path: Path
) -> None:
    texts = sentences(40, words=120)
    source = jsonl(tmp_path / "t.jsonl", texts)
    calibration = {"source": source, **SMALL, "samples_per_record": 4}
    evaluation = {**TEST, "max_windows": None}
    built = build(checkpoint, tmp_path / "out", calibration, evaluation=evaluation)
    splits = {
        "update": decoded(checkpoint, built.pool.update),
        "objective": decoded(checkpoint, built.pool.objective),
        "held_out": decoded(checkpoint, built.pool.held_out),
        "finetune": [row["text"] for row in built.finetune],
        "test": built.test["t"].split("\n\n"),
    }
    owners = {
        split: [i for sample in samples for i, text in enumerate(texts) if sample in text]
        for split, samples in splits.items()
    }
    assert all(len(owners[split]) == len(samples) for split, samples in splits.items())
    assert sum(len(set(o)) for o in owners.values()) == len(set().union(*owners.values()))
    assert len(owners["update"]) == 4 * len(set(owners["update"])) > 16
    assert all(len(set(owners[split])) == len(owners[split]) for split in ("finetune", "test"))


def test_finetuning_rows_of_several_sources_have_their_domain(
    checkpoint: Path, tmp_path: Path
) -> None:
    texts = {"0": sentences(60, seed=1), "1": sentences(60, seed=2)}
    uris = [jsonl(tmp_path / f"{domain}.jsonl", part) for domain, part in texts.items()]
    built = build(checkpoint, tmp_path / "out", {"source": uris, **SMALL}, evaluation=TEST)
    assert {row["domain"] for row in built.finetune} == {"0", "1"}
    assert all(row["text"] in texts[row["domain"]] for row in built.finetune)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    tokens = sum(len(tokenizer(row["text"])["input_ids"]) for row in built.finetune)
    assert built.summary.splits["finetune"].tokens == tokens, "the domain is no text"
    one = build(checkpoint, tmp_path / "one", {"source": uris[0], **SMALL}, evaluation=TEST)
    assert {tuple(row) for row in one.finetune} == {("text",)}


def test_source_without_a_calibration_sample_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    sources = [jsonl(tmp_path / f"{n}.jsonl", sentences(30, seed=n)) for n in (1, 2)]
    calibration = {"source": sources, **SMALL, "pool_size": 4, "shares": [1, 0.01]}
    with pytest.raises(UserError, match=r"2\.jsonl has no sample in the calibration pool"):
        build(checkpoint, tmp_path / "out", calibration, evaluation=TEST)
