"""Calibration text that the dense model generates, for use without texts of one's own.

Each text is sampled from the model's distribution (temperature 1, no top-k, no top-p):

- `self`: a document, starting from the token that separates documents. LLM-QAT (arXiv 2305.17888)
  starts from a random token instead; so do models without a separator here.
- `self:chat`: a dialogue. After the chat template's opening of a user turn, the model writes a
  request (Magpie, arXiv 2406.08464); then it writes the answer.

Such text follows the model's distribution, not that of its users: prefer their text wherever there
is some.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adapruner.config import CalibrationConfig, DeviceConfig
from adapruner.config.calibration import SELF, SELF_CHAT
from adapruner.data.texts.sources import TextSource
from adapruner.errors import UserError
from adapruner.hashing import hash_file
from adapruner.models.storage import checkpoint as ckpt
from adapruner.progress import announce, track

BATCH_SIZE = 64
"""Texts per generation batch."""

SPARE_TOKENS = 16
"""Tokens beyond min_tokens: a text that is tokenised again may have fewer tokens."""

_REQUEST = "REQUEST"


def with_generated_texts(
    sources: Mapping[str, TextSource],
    checkpoint: Path,
    device: DeviceConfig,
    calibration: CalibrationConfig,
    seed: int,
    out: Path,
) -> dict[str, TextSource]:
    """`sources` with self_texts texts of each generated source, which `checkpoint` writes.

    The files are `out`/self.jsonl and `out`/self-chat.jsonl, one row per line. Raises UserError for
    dialogues of a checkpoint without a chat template.
    """
    tokenizer = ckpt.load_tokenizer(checkpoint)
    if SELF_CHAT in calibration.generated_sources and not tokenizer.chat_template:
        raise UserError(
            f"calibration.source: {SELF_CHAT}: the checkpoint has no chat template: use {SELF}, or "
            "a checkpoint whose tokenizer has one"
        )
    model = ckpt.load_model(checkpoint, device)
    result = dict(sources)
    for uri in calibration.generated_sources:
        file = out / f"{uri.replace(':', '-')}.jsonl"
        _write_texts(_TEXTS[uri], model, tokenizer, calibration, seed, file)
        fields = {"kind": "jsonl", "location": str(file), "content_hash": hash_file(file)}
        result[uri] = sources[uri].model_copy(update=fields)
    return result


def _write_texts(
    generate: Callable[[Any, Any, int, int], list[str]],
    model: Any,
    tokenizer: Any,
    calibration: CalibrationConfig,
    seed: int,
    file: Path,
) -> None:
    count, length = calibration.self_texts, calibration.min_tokens + SPARE_TOKENS
    announce(f"texts: the model generates {count} texts of about {length} tokens")
    torch.manual_seed(seed)
    with file.open("w", encoding="utf-8") as out:
        for start in track(range(0, count, BATCH_SIZE), f"generating {file.stem}"):
            for text in generate(model, tokenizer, min(BATCH_SIZE, count - start), length):
                row = {calibration.text_field: text}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")


def documents(model: Any, tokenizer: Any, count: int, length: int) -> list[str]:
    """`count` texts of `length` tokens."""
    separators = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    if separators:
        first = [[separators[0]]] * count
    else:
        first = torch.randint(len(tokenizer), (count, 1)).tolist()
    rows = _sampled_tokens(model, first, length, min_new_tokens=length)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def dialogues(model: Any, tokenizer: Any, count: int, length: int) -> list[tuple[str, str]]:
    """`count` requests and answers of up to `length` tokens each; the model ends both."""
    opening, closing = _user_turn(tokenizer)
    prompt = tokenizer(opening, add_special_tokens=False).input_ids
    stops = _stop_tokens(model, tokenizer, closing)
    rows = _sampled_turns(model, [prompt] * count, length, stops)
    requests = [
        tokenizer.decode(row, skip_special_tokens=True).partition(closing)[0].strip()
        for row in rows
    ]
    prompts = [
        tokenizer(_prompt(tokenizer, request), add_special_tokens=False).input_ids
        for request in requests
    ]
    answers = _sampled_turns(model, prompts, length, stops)
    texts = (tokenizer.decode(row, skip_special_tokens=True).strip() for row in answers)
    return list(zip(requests, texts, strict=True))


def _dialogue_texts(model: Any, tokenizer: Any, count: int, length: int) -> list[str]:
    pairs = dialogues(model, tokenizer, count, length)
    return [f"{request}\n\n{answer}" for request, answer in pairs]


_TEXTS: dict[str, Callable[[Any, Any, int, int], list[str]]] = {
    SELF: documents,
    SELF_CHAT: _dialogue_texts,
}


def _prompt(tokenizer: Any, request: str) -> str:
    """The dialogue with this request, up to the opening of the answer."""
    messages = [{"role": "user", "content": request}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def _user_turn(tokenizer: Any) -> tuple[str, str]:
    """What the chat template writes before a request, and the first word behind it."""
    opening, request, rest = _prompt(tokenizer, _REQUEST).partition(_REQUEST)
    if not request or not rest.strip():
        raise UserError(
            f"calibration.source: {SELF_CHAT}: the chat template doesn't end a user's turn: use "
            f"{SELF}"
        )
    return opening, rest.split()[0]


def _stop_tokens(model: Any, tokenizer: Any, closing: str) -> list[int]:
    """The tokens that end a turn: those of the model, and the template's if it is special."""
    ends = model.generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    behind = tokenizer(closing, add_special_tokens=False).input_ids
    stops |= set(behind[:1]) & set(tokenizer.all_special_ids)
    return sorted(stops - {None})


def _sampled_turns(
    model: Any, prompts: Sequence[list[int]], length: int, stops: list[int]
) -> list[list[int]]:
    """Up to `length` tokens sampled after each prompt, up to the first of the stop tokens."""
    rows = _sampled_tokens(model, prompts, length, eos_token_id=stops or None)
    ends = (next((i for i, token in enumerate(row) if token in stops), length) for row in rows)
    return [row[:end] for row, end in zip(rows, ends, strict=True)]


@torch.inference_mode()
def _sampled_tokens(
    model: Any, prompts: Sequence[list[int]], length: int, **options: Any
) -> list[list[int]]:
    """Up to `length` tokens sampled after each of the prompts, which are padded on the left."""
    width = max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    padded = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    output = model.generate(
        torch.tensor(padded, device=device),
        attention_mask=torch.tensor(mask, device=device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=length,
        pad_token_id=0,
        **options,
    )
    rows: list[list[int]] = output[:, width:].tolist()
    return rows
