"""A small random Llama, a small tokenizer and a small text: the whole pipeline in seconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

ALWAYS = {"describe_hardware", "resolve_source", "register"}
BEFORE_PRUNING = {
    "load_model", "filter_calibration_pool", "estimate_importance", "evaluate_dense",
    "compute_gram_matrices", "compute_teacher_logits", "select_test_texts", "measure_latency",
}  # fmt: skip
AFTER_PRUNING = {
    "search", "prune", "finetune", "evaluate_pruned", "evaluate_finetuned", "measure_efficiency",
    "compare_behaviour", "export", "measure_recovery", "report",
}  # fmt: skip

VOCABULARY = (
    "the quick brown fox jumps over a lazy dog while seven old men watch from green hills near "
    "some river and talk about rain bread winter songs ships stones letters and the long way home"
)


def write_text(path: Path, seed: int, paragraphs: int = 600) -> None:
    rng, words = random.Random(seed), VOCABULARY.split()
    lines = (" ".join(rng.choices(words, k=60)) + f" {seed} {i}." for i in range(paragraphs))
    path.write_text("\n\n".join(lines) + "\n")


def write_checkpoint(path: Path, seed: int, channels: int = 64) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=channels,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator([VOCABULARY] * 5, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(path)


def config(folder: Path) -> dict[str, Any]:
    """The content of a run's file, for `model/` and `text.txt` in `folder`."""
    sections = {
        "name": "small",
        "model": {"source": str(folder / "model")},
        "calibration": {
            "source": str(folder / "text.txt"),
            "min_tokens": 16,
            "sequence_length": 16,
            "pool_size": 12,
            "objective_tokens": 128,
        },
        "search": {"trials": 8, "set_size": 4},
        "pruning": {"ratio": 0.2, "ratio_of": "blocks", "layout": "uniform", "round_to": 4},
        "finetune": {"steps": 3, "batch_size": 2, "sequence_length": 16, "rank": 2},
        "evaluation": {
            "sequence_length": 16,
            "max_windows": 8,
            "prompt_tokens": 8,
            "new_tokens": 4,
            "repeats": 2,
            "peak_memory": False,
            "prompts": ["the quick brown"],
            "behaviour_windows": 2,
        },
        "registry": {"name": "small-pruned"},
    }
    return {"parameters": {"config": sections}}
