"""Small checkpoints with a byte-level tokenizer, which GGUF can hold."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adapruner.models.families import FAMILIES
from adapruner.models.storage.checkpoint import save_checkpoint
from tests.adapruner.models.checkpoints import MLP_WIDTHS, WIDTHS, per_layer_model
from tests.models import BASE, KINDS, random_model

VOCABULARY = 320
LAYERS: dict[str, dict[int, dict[str, int]]] = {"mlp": MLP_WIDTHS, "heads": WIDTHS}
TEXT = "the quick brown fox jumps over 13 lazy dogs; x =  2 and the river is wide"


def small(kind: str, layers: str = "equal", **changes: Any) -> Any:
    """A random model of a kind of `KINDS`, whose layers are equal or differ by MLP or heads.

    `changes` are config fields that differ from the kind's.
    """
    fields = BASE | KINDS[kind] | {"vocab_size": VOCABULARY} | changes
    stock = random_model(fields, FAMILIES[fields["model_type"]].architecture)
    return stock if layers == "equal" else per_layer_model(stock, LAYERS[layers])


def write(model: Any, folder: Path) -> Path:
    """A checkpoint of the model in the new directory `folder`."""
    folder.mkdir()
    save_checkpoint(model, tokenizer_folder(), folder)
    return folder


@cache
def tokenizer_folder() -> Path:
    """A directory with a byte-level tokenizer that splits numbers as SmolLM2's does."""
    folder = Path(mkdtemp())
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 10,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<unk>", "<s>", "</s>"],
    )
    tokenizer.train_from_iterator([TEXT] * 9, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        chat_template="{{ messages[0].content }}",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def without_tokenizer(checkpoint: Path, folder: Path) -> Path:
    """A copy of a checkpoint without its tokenizer."""
    return Path(shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("tokenizer*")))
