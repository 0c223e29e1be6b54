"""Recovery: LoRA on every projection of the cut model, merged back into its weights.

LoRA: arXiv 2106.09685. The loss is taken over all tokens of plain text, over the response alone for
Alpaca rows. It is either the cross-entropy of the text (`data`), or the Kullback-Leibler divergence
KL(dense || cut) of the two next-token distributions at temperature 1 (`distill`, arXiv 1503.02531),
grouped as in `teacher`: the dense model is at hand, and what it finds likely tells more than the
one token that followed.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from adapruner.models import checkpoint as ckpt
from adapruner.config import FinetuneConfig, ModelConfig
from adapruner.errors import UserError
from adapruner.recovery.examples import IGNORE, Example, batches, chosen_examples, padded
from adapruner.recovery.teacher_logits import read_expected, rows_of
from adapruner.models.families import family_of
from adapruner.evaluation.perplexity import mean_loss
from adapruner.progress import announce, track
from adapruner.evaluation.divergence import Likely, divergence

CHECKS = 8
"""How often, over the whole training, the loss on held-out text is looked at."""

CHECKED_ON = 16
"""Windows of the held-out text that it is looked at on."""


def finetune(
    checkpoint: Path,
    expected: Path,
    pool: Path,
    model: ModelConfig,
    finetune: FinetuneConfig,
    seed: int,
    out: Path,
) -> None:
    """Trains on `finetune.jsonl` of `pool`; writes `checkpoint/`, `curve.json`, `summary.json`.

    `expected` is what `expectations.expect` wrote. With `method: none` the checkpoint is passed
    on. What was learned is added to the weights in the type that they are stored in. Raises
    UserError, with the step named, at the first loss that is not finite.
    """
    target = out / "checkpoint"
    target.mkdir()
    if (checkpoint / ckpt.PLAN_FILE).is_file():
        shutil.copyfile(checkpoint / ckpt.PLAN_FILE, target / ckpt.PLAN_FILE)
    if finetune.method == "none":
        ckpt.pass_on(checkpoint, target)
        _write(out, [], {"method": "none"})
        return
    examples = _examples(checkpoint, pool, finetune)
    known = read_expected(expected) if finetune.loss == "distill" else None
    held_out = load_file(pool / "pool.safetensors")["held_out"][:CHECKED_ON]
    torch.manual_seed(seed)
    adapted = _with_adapters(ckpt.load_model(checkpoint, model), finetune)
    curve = train(adapted, examples, finetune, seed, known, held_out)
    learned = _learned(adapted)
    del adapted
    merged = ckpt.load_model(checkpoint, model, dtype=ckpt.stored_dtype(checkpoint))
    for name, change in learned.items():
        weight = merged.get_submodule(name).weight
        weight.copy_(weight.float() + change.to(weight.device))
    ckpt.save(merged, checkpoint, target)
    summary = {"method": "lora", "loss": finetune.loss, "examples": len(examples)}
    _write(out, curve, summary | {"steps": len(curve)})


def _examples(checkpoint: Path, pool: Path, finetune: FinetuneConfig) -> list[Example]:
    given = (finetune.sequence_length, finetune.steps * finetune.batch_size)
    examples = chosen_examples(pool, ckpt.load_tokenizer(checkpoint), *given)
    if len(examples) < finetune.batch_size:
        raise UserError(
            f"the fine-tune split has {len(examples)} examples of use, a batch needs "
            f"{finetune.batch_size}; give more texts or lower finetune.batch_size"
        )
    return examples


def _learned(adapted: Any) -> dict[str, Tensor]:
    """By module of the model without adapters: what its weight gains, float32, on the CPU."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").float().cpu()
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def train(
    model: Any,
    examples: list[Example],
    finetune: FinetuneConfig,
    seed: int,
    known: Likely | None,
    held_out: Tensor,
) -> list[dict[str, float]]:
    """AdamW, linear warm-up, cosine decay; returns [{step, loss}], losses in nats a token.

    With `known`, what the dense model expects, the loss is the divergence from it, else the text's
    own. Rows of steps that `CHECKS` falls on also have the `held_out` loss: the mean negative log
    likelihood of the windows `held_out`, int [M, T].
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=finetune.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, finetune))
    device = model.get_input_embeddings().weight.device
    announce(
        f"fine-tune: {finetune.steps} steps of {finetune.batch_size} x "
        f"{finetune.sequence_length} tokens, {sum(p.numel() for p in weights):,} LoRA weights"
    )
    curve = []
    chosen = batches(examples, finetune.batch_size, seed)
    every = max(finetune.steps // CHECKS, 1)
    for step in track(range(1, finetune.steps + 1), "fine-tune"):
        indices = next(chosen)
        wanted = None if known is None else rows_of(known, examples, indices)
        tokens, labels, mask = (part.to(device) for part in padded([examples[n] for n in indices]))
        model.train()
        loss = token_loss(_logits(model, tokens, mask), labels, mask, wanted)
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
        row = {"step": step, "loss": loss.item()}
        model.eval()
        if step % every == 0 or step == finetune.steps:
            row["held_out"] = mean_loss(model, held_out)
        curve.append(row)
    return curve


def token_loss(logits: Tensor, labels: Tensor, mask: Tensor, wanted: Likely | None) -> Tensor:
    """Mean loss in nats of the tokens that are trained on.

    `logits` is [B, T, V]; `labels` and `mask`, which marks real tokens, are [B, T]; `wanted` is
    what the dense model expects at all real positions but each example's last. The loss is the
    divergence from it, or cross-entropy where it is None.
    """
    targets = labels[:, 1:].to(logits.device).flatten()
    trained = targets != IGNORE
    student = logits[:, :-1].flatten(0, 1)
    if wanted is None:
        return F.cross_entropy(student[trained].float(), targets[trained])
    real = mask[:, 1:].flatten().bool()
    of_real = trained[real].to(wanted.tokens.device)
    return divergence(Likely(*(part[of_real] for part in wanted)), student[trained]).mean()


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


def _write(out: Path, curve: list[dict[str, float]], summary: dict[str, Any]) -> None:
    (out / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
