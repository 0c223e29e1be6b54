"""The tokenizer in a GGUF file: vocabulary, merges or scores, special tokens, pre-tokenizer.

llama.cpp has two kinds that fit: `gpt2`, byte-level BPE with a pre-tokenizer by name, and `llama`,
BPE over pieces with byte fallback, whose merges follow scores. Anything else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gguf import GGUFWriter, TokenType

from adapruner.errors import UserError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

THREE_DIGITS = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
ONE_DIGIT = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"

PRE_TOKENIZERS: dict[tuple[object, ...], str] = {
    (("ByteLevel", True), False): "gpt-2",
    (("Digits", True), ("ByteLevel", True), False): "smollm",
    (("Split", ONE_DIGIT), ("ByteLevel", False), False): "qwen2",
    (("Split", THREE_DIGITS), ("ByteLevel", False), False): "dbrx",
    (("Split", THREE_DIGITS), ("ByteLevel", False), True): "llama-bpe",
}
"""Steps of a pre-tokenizer, and whether whole words precede merges -> llama.cpp's name for it."""

_SPECIAL = ("bos", "eos", "unk", "pad")


def check_tokenizer(tokenizer: Any, vocab_size: int) -> None:
    """Raises UserError for a tokenizer that a GGUF file can't hold."""
    parts = _parts(tokenizer)
    if not _is_pieces(parts):
        _pre_tokenizer_name(parts)
    if max(tokenizer.get_vocab().values()) >= vocab_size:
        raise UserError(
            f"the tokenizer has tokens above the model's {vocab_size}; use the tokenizer that "
            "belongs to the checkpoint"
        )


def add_tokenizer(writer: GGUFWriter, tokenizer: Any, vocab_size: int) -> None:
    """Writes the keys of a checked tokenizer. The vocabulary is filled to `vocab_size`."""
    parts = _parts(tokenizer)
    merges = [m if isinstance(m, str) else " ".join(m) for m in parts["model"]["merges"]]
    tokens, types = _vocabulary(tokenizer, vocab_size, _is_pieces(parts))
    if _is_pieces(parts):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokens, merges))
        writer.add_add_space_prefix(_adds_space(parts))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer_name(parts))
        writer.add_token_merges(merges)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for name in _SPECIAL:
        index = getattr(tokenizer, f"{name}_token_id")
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    ids = tokenizer("a").input_ids
    writer.add_add_bos_token(ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(ids[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _parts(tokenizer: Any) -> dict[str, Any]:
    """The parts of a fast BPE tokenizer, as in its tokenizer.json."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    kind = parts.get("model", {}).get("type", type(tokenizer).__name__)
    if kind != "BPE":
        raise UserError(f"a tokenizer of the kind {kind} can't be stored in GGUF; it takes BPE")
    return parts


def _is_pieces(parts: Mapping[str, Any]) -> bool:
    """Whether the tokens are pieces of text with byte fallback, not texts of bytes."""
    return bool(parts["model"].get("byte_fallback"))


def _pre_tokenizer_name(parts: Mapping[str, Any]) -> str:
    steps = tuple(_steps(parts["pre_tokenizer"]))
    key = (*steps, bool(parts["model"].get("ignore_merges")))
    name = PRE_TOKENIZERS.get(key)
    if name is None:
        raise UserError(
            f"the tokenizer splits text by {list(steps)}, for which no name in llama.cpp is known "
            "here; add it to adapruner.export.gguf_tokenizer.PRE_TOKENIZERS"
        )
    return name


def _steps(pre: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """The steps of a pre-tokenizer, with the setting that matters of each."""
    if pre is None:
        return
    kind = pre["type"]
    if kind == "Sequence":
        for step in pre["pretokenizers"]:
            yield from _steps(step)
    elif kind == "Split":
        yield kind, pre["pattern"].get("Regex") or pre["pattern"].get("String")
    else:
        yield kind, pre.get({"Digits": "individual_digits", "ByteLevel": "use_regex"}.get(kind, ""))


def _adds_space(parts: Mapping[str, Any]) -> bool:
    """Whether text gets a space before its first word."""
    pre = parts["pre_tokenizer"] or {}
    if pre.get("type") == "Metaspace":
        return bool(pre.get("prepend_scheme", "always") != "never")
    return any(step["type"] == "Prepend" for step in _normalizers(parts["normalizer"]))


def _normalizers(normalizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if normalizer is None:
        return []
    return list(normalizer.get("normalizers", [normalizer]))


def _vocabulary(tokenizer: Any, size: int, pieces: bool) -> tuple[list[str], list[int]]:
    """Texts and types of all tokens; ids without a token are unused."""
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [int(TokenType.UNUSED)] * size
    added = tokenizer.added_tokens_decoder
    for text, index in tokenizer.get_vocab().items():
        tokens[index], kind = text, TokenType.NORMAL
        if pieces and len(text) == 6 and text.startswith("<0x"):
            kind = TokenType.BYTE
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        types[index] = int(kind)
    if pieces and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = int(TokenType.UNKNOWN)
    return tokens, types


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """A score for each token: the earlier the merge that makes it, the higher."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", "", 1), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]
