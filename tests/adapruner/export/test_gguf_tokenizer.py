"""Which tokenizers a GGUF file holds, and under which names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter, TokenType
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adapruner.errors import UserError
from adapruner.export.gguf_tokenizer import (
    ONE_DIGIT,
    THREE_DIGITS,
    add_tokenizer,
    check_tokenizer,
)

SPECIAL = ["<unk>", "<s>", "</s>"]


def split(pattern: str) -> Any:
    parts = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(parts)


def byte_level(pre: Any, ignore_merges: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=SPECIAL)
    tokenizer.train_from_iterator(["the river and the road"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def stored(tokenizer: Any, folder: Path, size: int = 320) -> dict[str, Any]:
    """Name -> value of the tokenizer's keys."""
    check_tokenizer(tokenizer, size)
    writer = GGUFWriter(folder / "t.gguf", "llama")
    add_tokenizer(writer, tokenizer, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fields = GGUFReader(folder / "t.gguf").fields
    return {
        name.removeprefix("tokenizer.ggml."): field.contents() for name, field in fields.items()
    }


@pytest.mark.parametrize(
    ("pre", "ignore_merges", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), False, "gpt-2"),
        (split(ONE_DIGIT), False, "qwen2"),
        (split(THREE_DIGITS), True, "llama-bpe"),
        (split(THREE_DIGITS), False, "dbrx"),
    ],
)
def test_a_pre_tokenizer_has_the_name_that_llama_cpp_knows_it_by(
    pre: Any, ignore_merges: bool, name: str, tmp_path: Path
) -> None:
    assert stored(byte_level(pre, ignore_merges), tmp_path)["pre"] == name


def test_another_pre_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="splits text by"):
        check_tokenizer(byte_level(split(r"\d+")), 320)


def test_a_tokenizer_larger_than_the_model_is_refused() -> None:
    with pytest.raises(UserError, match="tokens above the model's 100"):
        check_tokenizer(byte_level(pre_tokenizers.ByteLevel()), 100)


def test_pieces_with_byte_fallback_have_scores_in_the_order_of_their_merges(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special)
    tokenizer.train_from_iterator(["the river and the road"] * 5, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fields = stored(fast, tmp_path)
    assert (fields["model"], fields["add_space_prefix"]) == ("llama", True)
    tokens, scores, types = fields["tokens"], fields["scores"], fields["token_type"]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merged = ["".join(pair) for pair in merges]
    assert all(scores[tokens.index(token)] == -merged.index(token) for token in merged)
    assert scores[tokens.index("t")] == -len(merges)
    assert (types[0], types[5]) == (TokenType.UNKNOWN, TokenType.BYTE)
