"""The proof of a family that was found by `models.discovery`, before anything is computed with it.

A model of the checkpoint's config, with its real widths, at most four layers, random weights in
float32 and a short sliding window, is cut and must compute exactly what it should.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from adapruner.config import PruningConfig
from adapruner.errors import UserError, first_line
from adapruner.models.families import is_tried
from adapruner.models.shallow import shallow_model
from adapruner.models.storage.checkpoint import read_config, save_checkpoint
from adapruner.models.structures import LayerWidths, describe_model, layer_modules
from adapruner.progress import announce
from adapruner.pruning.plan import PruningPlan, make_plan
from adapruner.pruning.surgery import apply, narrowed
from adapruner.pruning.target import PruningTarget

DEPTH, VOCABULARY, WINDOW, LENGTH = 4, 256, 6, 12
TOLERANCE = 1e-4
"""Maximum difference of logits, relative to the largest; a cut must change them more."""


@torch.no_grad()
def prove(checkpoint: Path) -> None:
    """Raises UserError, with the name of the check, unless the checkpoint's family is exact.

    Both layouts are proved. Families of the table are not: the tests prove them. Memory: the
    float32 weights of four layers, twice.
    """
    config = read_config(checkpoint)
    if not is_tried(config.model_type):
        return
    announce(f"model.family auto: proving {config.model_type} on a random model of its widths")
    ids = torch.randint(3, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    for layout in ("per_layer", "uniform"):
        try:
            trial = _Trial(_random_model(config), ids, layout, checkpoint)
        except Exception as error:  # Transformers reports a config that it can't build by any type
            raise _refusal(config, "a model of four layers is built", error) from None
        for check, holds in CHECKS.items():
            failed: Exception | None
            try:
                failed = None if holds(trial) else ArithmeticError("the numbers differ")
            except Exception as error:  # a wrong guess fails anywhere in the model
                failed = error
            if failed is not None:
                raise _refusal(config, f"{layout}, {check}", failed)


@dataclass(frozen=True)
class _Trial:
    """A random model, which the checks cut one after the other, and the tokens it computes."""

    model: Any
    ids: Tensor
    layout: str
    beside: Path

    def keeps_all(self) -> bool:
        plan, before = _plan(self.model, "nothing"), self.model(self.ids).logits
        with narrowed(self.model, plan):
            inside = self.model(self.ids).logits
        apply(self.model, plan)
        return torch.equal(inside, before) and torch.equal(self.model(self.ids).logits, before)

    def equals_masked(self) -> bool:
        plan, before = _plan(self.model, self.layout), self.model(self.ids).logits
        with _masked(self.model, plan):
            masked = self.model(self.ids).logits
        with narrowed(self.model, plan):
            inside = self.model(self.ids).logits
        apply(self.model, plan)
        after = self.model(self.ids).logits
        return _close(inside, masked) and _close(after, masked) and not _close(masked, before)

    def reloads(self) -> bool:
        return torch.equal(self._reloaded()(self.ids).logits, self.model(self.ids).logits)

    def generates(self) -> bool:
        model = self._reloaded()
        options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
        cached = model.generate(self.ids, **options)
        return torch.equal(cached, model.generate(self.ids, use_cache=False, **options))

    def _reloaded(self) -> Any:
        with TemporaryDirectory() as folder:
            save_checkpoint(self.model, self.beside, Path(folder))
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        return loaded.eval()


CHECKS: dict[str, Callable[[_Trial], bool]] = {
    "ratio 0 gives identical logits": _Trial.keeps_all,
    "a random cut equals the masked model": _Trial.equals_masked,
    "the reloaded checkpoint equals the model in memory": _Trial.reloads,
    "generation with a cache equals generation without": _Trial.generates,
}
"""What must hold -> whether it does."""


def _refusal(config: Any, check: str, error: Exception) -> UserError:
    return UserError(
        f"model.family auto can't compress {config.model_type}: the check '{check}' failed: "
        f"{first_line(error, 120)}; choose a supported model"
    )


def _close(logits: Tensor, expected: Tensor) -> bool:
    return float((logits - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def _random_model(config: Any) -> Any:
    window = {"sliding_window": WINDOW} if getattr(config, "sliding_window", None) else {}
    torch.manual_seed(0)
    model = shallow_model(config, DEPTH, VOCABULARY, torch.float32, **window)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(std=weight.shape[-1] ** -0.5)
        else:
            weight.data.add_(torch.randn_like(weight), alpha=0.1)
    return model


def _plan(model: Any, what: str) -> PruningPlan:
    """A plan that keeps all (nothing), or random channels and heads: per_layer or uniform."""
    structures, drawn = describe_model(model), random.Random(0)
    keep = []
    for index, dense in enumerate(structures.layers):
        channels, heads = list(range(dense.mlp_channels)), list(range(dense.query_heads))
        step = index if what == "per_layer" else 0
        if what != "nothing":
            channels = sorted(drawn.sample(channels, max(len(channels) // 2 - step, 1)))
        if what != "nothing" and not structures.family.couples_heads:
            fewer = _heads(dense, step, drawn)
            is_stock = len(fewer) in structures.stock_head_counts
            heads = fewer if what == "per_layer" or is_stock else heads
        keep.append((channels, heads))
    pruning = PruningConfig(ratio=0.5, protect_first=0, protect_last=0)
    return make_plan(PruningTarget(structures, pruning), keep, {})


def _heads(dense: LayerWidths, step: int, drawn: random.Random) -> list[int]:
    """All heads without one KV group at even steps, without one head per group at odd ones."""
    size, heads = dense.heads_per_group, range(dense.query_heads)
    group, member = drawn.randrange(dense.kv_groups), drawn.randrange(size)
    if step % 2 == 0 and dense.kv_groups > 1:
        return [head for head in heads if head // size != group]
    return [head for head in heads if size == 1 or head % size != member]


@contextmanager
def _masked(model: Any, plan: PruningPlan) -> Iterator[None]:
    """Within it, what the plan removes is multiplied by zero before down and output."""
    head_dim, handles = describe_model(model).head_dim, []

    def multiply(mask: Tensor, _: nn.Module, args: Any) -> Any:
        return (args[0] * mask,)

    for modules, kept in zip(layer_modules(model), plan.layers, strict=True):
        for linear, units, size in (
            (modules.projections["down"], kept.channels(), 1),
            (modules.output, kept.heads(), head_dim),
        ):
            mask = torch.zeros(linear.in_features // size)
            mask[units] = 1
            hook = partial(multiply, mask.repeat_interleave(size))
            handles.append(linear.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
