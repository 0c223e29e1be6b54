"""Recovery: LoRA on every projection of the cut model, merged back into its weights.

LoRA: arXiv 2106.09685. The loss is taken over all tokens of plain text, over the response alone for
Alpaca rows. It is either the cross-entropy of the text (`data`), or the Kullback-Leibler divergence
KL(dense || cut) of the two next-token distributions at temperature 1 (`distill`, arXiv 1503.02531):
the dense model is at hand, and what it finds likely tells more than the one token that followed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapruner import checkpoint as ckpt
from adapruner.config import FinetuneConfig, ModelConfig
from adapruner.errors import UserError
from adapruner.families import family_of
from adapruner.progress import say, track

IGNORE = -100
"""Label of a token whose prediction is not trained on."""

PROMPTS = {
    True: "Below is an instruction that describes a task, paired with an input that provides "
    "further context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    False: "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n",
}
"""The Alpaca prompt with and without an input, the format that such rows are made for."""

Example = tuple[list[int], list[int]]


def finetune(
    checkpoint: Path,
    dense: Path,
    pool: Path,
    model: ModelConfig,
    finetune: FinetuneConfig,
    seed: int,
    out: Path,
) -> None:
    """Trains on `finetune.jsonl` of `pool`; writes `checkpoint/`, `curve.json`, `summary.json`.

    With `method: none` the checkpoint is passed on. What was learned is added to the weights in
    the type that they are stored in. Raises UserError, with the step named, at the first loss that
    is not finite.
    """
    target = out / "checkpoint"
    target.mkdir()
    if (checkpoint / ckpt.PLAN_FILE).is_file():
        shutil.copyfile(checkpoint / ckpt.PLAN_FILE, target / ckpt.PLAN_FILE)
    if finetune.method == "none":
        ckpt.pass_on(checkpoint, target)
        _write(out, [], {"method": "none"})
        return
    tokenizer = ckpt.load_tokenizer(checkpoint)
    examples = encode_rows(
        read_examples(pool / "finetune.jsonl"), tokenizer, finetune.sequence_length
    )
    if len(examples) < finetune.batch_size:
        raise UserError(
            f"the fine-tune split has {len(examples)} examples of use, a batch needs "
            f"{finetune.batch_size}; give more texts or lower finetune.batch_size"
        )
    torch.manual_seed(seed)
    teacher = ckpt.load_model(dense, model) if finetune.loss == "distill" else None
    adapted = _with_adapters(ckpt.load_model(checkpoint, model), finetune)
    curve = train(adapted, examples, finetune, seed, teacher)
    learned = _learned(adapted)
    del adapted, teacher
    merged = ckpt.load_model(checkpoint, model, dtype=ckpt.stored_dtype(checkpoint))
    for name, change in learned.items():
        weight = merged.get_submodule(name).weight
        weight.copy_(weight.float() + change.to(weight.device))
    ckpt.save(merged, checkpoint, target)
    summary = {"method": "lora", "loss": finetune.loss, "examples": len(examples)}
    _write(out, curve, summary | {"steps": len(curve)})


def _learned(adapted: Any) -> dict[str, Tensor]:
    """By module of the model without adapters: what its weight gains, float32, on the CPU."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").float().cpu()
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def read_examples(file: Path) -> list[dict[str, str]]:
    """The rows of a JSON Lines file: a line ends at a line feed alone, as texts hold the others."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def encode_rows(rows: list[dict[str, str]], tokenizer: Any, length: int) -> list[Example]:
    """(tokens, labels) of the rows, at most `length` tokens each.

    Plain texts are joined, an end-of-text token after each, and cut into full windows. An Alpaca
    row is one example whose prompt is not trained on; one without room for a response is dropped.
    """
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stream: list[int] = []
    examples: list[Example] = []
    for row in rows:
        if "text" in row:
            stream += tokenizer(row["text"])["input_ids"] + end
            continue
        prompt = tokenizer(PROMPTS[bool(row.get("input"))].format(**row))["input_ids"]
        answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + end
        tokens = (prompt + answer)[:length]
        labels = ([IGNORE] * len(prompt) + answer)[:length]
        if len(tokens) > len(prompt):
            examples.append((tokens, labels))
    windows = (stream[i : i + length] for i in range(0, len(stream) - length + 1, length))
    return examples + [(window, window) for window in windows]


def train(
    model: Any, examples: list[Example], finetune: FinetuneConfig, seed: int, teacher: Any = None
) -> list[dict[str, float]]:
    """AdamW, linear warm-up, cosine decay; returns [{step, loss}], losses in nats a token.

    With a `teacher` the loss is the divergence from its distribution, else the text's own.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=finetune.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, finetune))
    device = model.get_input_embeddings().weight.device
    say(
        f"fine-tune: {finetune.steps} steps of {finetune.batch_size} x "
        f"{finetune.sequence_length} tokens, {sum(p.numel() for p in weights):,} LoRA weights"
    )
    model.train()
    curve = []
    batches = _batches(examples, finetune, seed)
    for step in track(range(1, finetune.steps + 1), "fine-tune"):
        tokens, labels, mask = (part.to(device) for part in next(batches))
        with torch.no_grad():
            wanted = None if teacher is None else _logits(teacher, tokens, mask)
        loss = token_loss(_logits(model, tokens, mask), labels, wanted)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss of fine-tuning step {step} is {loss.item()}; lower "
                f"finetune.learning_rate ({finetune.learning_rate:g}) or use dtype: float32"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        curve.append({"step": step, "loss": loss.item()})
    model.eval()
    return curve


def token_loss(logits: Tensor, labels: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Mean loss in nats of the tokens that are trained on, from logits [B, T, V], labels [B, T].

    KL(wanted || logits) where the teacher's logits `wanted` are given, else cross-entropy.
    """
    targets = labels[:, 1:].to(logits.device).flatten()
    trained = targets != IGNORE
    student = logits[:, :-1].flatten(0, 1)[trained].float().log_softmax(-1)
    if wanted is None:
        return F.nll_loss(student, targets[trained])
    known = wanted[:, :-1].to(logits.device).flatten(0, 1)[trained].float().log_softmax(-1)
    return F.kl_div(student, known, reduction="batchmean", log_target=True)


def _logits(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    found: Tensor = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return found


def _with_adapters(model: Any, finetune: FinetuneConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    family = family_of(model.config.model_type, model.config.architectures)
    config = LoraConfig(
        r=finetune.rank,
        lora_alpha=finetune.alpha,
        lora_dropout=finetune.dropout,
        target_modules=[name.rsplit(".", 1)[-1] for name in family.projections],
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _rate(step: int, finetune: FinetuneConfig) -> float:
    if step < finetune.warmup_steps:
        return (step + 1) / finetune.warmup_steps
    done = (step - finetune.warmup_steps) / max(finetune.steps - finetune.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _batches(
    examples: list[Example], finetune: FinetuneConfig, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless shuffled batches: tokens, labels and attention mask, each int64 [B, longest]."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(examples), generator=generator).tolist()
        for i in range(0, len(order) - finetune.batch_size + 1, finetune.batch_size):
            chosen = [examples[n] for n in order[i : i + finetune.batch_size]]
            longest = max(len(tokens) for tokens, _ in chosen)
            yield (
                torch.tensor([t + [0] * (longest - len(t)) for t, _ in chosen]),
                torch.tensor([y + [IGNORE] * (longest - len(y)) for _, y in chosen]),
                torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t, _ in chosen]),
            )


def _write(out: Path, curve: list[dict[str, float]], summary: dict[str, Any]) -> None:
    (out / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
