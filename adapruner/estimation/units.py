"""What the parts of a model cost on a device: one layer of it, with random weights, is timed.

Costs of one layer do not depend on the number of layers, so that a model of any depth is estimated
without its weights. Only one layer is in memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.evaluation.normalizer import log_sum_exp
from adapruner.importance.reductions import products, unit_sums
from adapruner.models.shallow import shallow_model
from adapruner.models.streamed.passes import LayerRunner
from adapruner.models.structures import Structures
from adapruner.pruning.updates.activations import add_gram
from adapruner.pruning.updates.update import RIDGE, updated_weight

TOKENS, PASS = 512, 4.0
"""The most tokens of a timed pass, about those of a micro-batch, and the most seconds: where a pass
would take longer, it has fewer tokens.

A 7B layer in bfloat16 takes many minutes on a processor that has no instructions for it.
"""

VOCABULARY, WIDTH = 2**13, 2**11
"""The most that is timed: larger vocabularies and matrices of a layer's channels are scaled up."""

EMBEDDINGS = 256
"""Token ids of the timed passes: their cost does not depend on the vocabulary."""

REPEATS, LEAST, MOST = 3, 0.3, 5.0
"""Repeats of a timing; the seconds after which it may end, and those after which it ends."""


@dataclass(frozen=True)
class Units:
    """Seconds on one device.

    `layer`: a layer's forward pass, per token of a batch of samples; `backward`: its backward pass
    to the inputs, whose share depends on the attention's kernel. `decode`: the same for a
    single new token. `head`: the output projection and the loss, per token. `gram`: X^T X of the
    inputs of a down projection, per token. `solve`: the closed-form update of a down projection;
    `mix`: to add a stored X^T X of one domain to a mix. `fisher`: a layer's weight gradients of
    one sample and their squares; an upper bound where only a part of a sample is timed.
    """

    layer: float
    backward: float
    decode: float
    head: float
    gram: float
    solve: float
    mix: float
    fisher: float


@torch.no_grad()
def measure_units(
    config: Any, structures: Structures, length: int, dtype: torch.dtype, device: torch.device
) -> Units:
    """The costs of a model of `config` on samples of `length` tokens, in `dtype` on `device`.

    Memory: one layer, or a matrix of `WIDTH` x `WIDTH` in float32, whichever is larger.
    """
    torch.manual_seed(0)
    clock, hidden = Clock(device), structures.hidden_size
    runner = LayerRunner(shallow_model(config, 1, EMBEDDINGS, dtype).to(device))
    ids = timed_tokens(runner, length, clock)
    batch, single = (runner.enter(input_ids=tokens) for tokens in (ids, ids[:1, :1]))
    mlps, width = structures.layers[0].mlps, min(structures.layers[0].mlp_width, WIDTH)
    scale = structures.layers[0].mlp_width / width
    down = nn.Linear(width, hidden, bias=False, dtype=dtype, device=device)
    inputs = torch.randn(ids.numel(), width, dtype=dtype, device=device)
    gram = torch.zeros(width, width, device=device)
    weights = structures.block_params / len(structures.layers) / down.weight.numel()
    layer, backward = clock.in_turns(lambda: runner.run(0, batch), _backward_pass(runner, batch))
    return Units(
        layer=layer / ids.numel(),
        backward=backward / ids.numel(),
        decode=clock.seconds(lambda: runner.run(0, single)),
        head=_head_seconds(batch.flatten(0, 1), config.vocab_size, clock) / ids.numel(),
        gram=clock.seconds(lambda: add_gram(gram, inputs)) / ids.numel() * scale**2 * mlps,
        solve=_solve_seconds(down, inputs.float(), scale, clock) * scale**3 * mlps,
        mix=_mix_seconds(gram, clock) * scale**2 * mlps,
        fisher=_fisher_seconds(down, inputs.view(*ids.shape, -1), batch, clock)
        * weights
        * length
        / ids.shape[1],
    )


def timed_tokens(runner: LayerRunner, length: int, clock: Clock) -> Tensor:
    """Token ids [samples, tokens] of a pass: samples of `length`, or a part of one, see `PASS`."""

    def token_ids(tokens: int) -> Tensor:
        shape = max(tokens // length, 1), min(tokens, length)
        return torch.randint(3, EMBEDDINGS, shape, device=clock.device)

    def is_short(tokens: int) -> bool:
        """Whether a pass of four times the tokens may be timed; the first one sets a device up."""
        batch = runner.enter(input_ids=token_ids(tokens))
        times = (clock.once(lambda: _both_passes(runner, batch)) for _ in range(2))
        return any(4 * taken < PASS for taken in times)

    most, tokens = max(TOKENS // length, 1) * length, 1
    while tokens < most and is_short(tokens):
        tokens = min(tokens * 4, most)
    return token_ids(tokens)


@torch.enable_grad()
def _both_passes(runner: LayerRunner, batch: Tensor) -> None:
    """A layer's forward pass, and its backward pass to the inputs."""
    output = runner.run(0, batch.detach().requires_grad_())
    output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]


@torch.enable_grad()
def _backward_pass(runner: LayerRunner, batch: Tensor) -> Callable[[], object]:
    """A call of a layer's backward pass to the inputs alone, which can be repeated.

    A difference of two times would be lost in the noise of a busy machine.
    """
    inputs = batch.detach().requires_grad_()
    output = runner.run(0, inputs)
    ones = torch.ones_like(output)
    return lambda: torch.autograd.grad(output, inputs, ones, retain_graph=True)


def _head_seconds(states: Tensor, vocabulary: int, clock: Clock) -> float:
    """Of the logits of `states` [N, hidden] and the losses of their tokens."""
    rows = min(vocabulary, VOCABULARY)
    weight = torch.randn(rows, states.shape[1], dtype=states.dtype, device=states.device)
    return clock.seconds(lambda: log_sum_exp(states @ weight.T)) * vocabulary / rows


def _solve_seconds(down: nn.Linear, inputs: Tensor, scale: float, clock: Clock) -> float:
    """Of the update of `down` with three of four channels, from its `inputs` [N, channels].

    The channels are those of the model divided by `scale`, and so are the rows that are updated:
    all parts of the solution grow with its third power.
    """
    weight = down.weight[: max(round(down.out_features / scale), 1)]
    gram, kept = inputs.T @ inputs, [c for c in range(down.in_features) if c % 4]
    return clock.seconds(lambda: updated_weight(weight, gram, kept, RIDGE))


def _mix_seconds(gram: Tensor, clock: Clock) -> float:
    """Of adding the stored half of a matrix, in memory, to that of `gram` [channels, channels]."""
    half = gram[: len(gram) // 2]
    stored, total = torch.zeros(half.shape, dtype=torch.half), torch.zeros_like(half)
    return clock.seconds(lambda: total.add_(stored.to(gram.device), alpha=0.5))


def _fisher_seconds(down: nn.Linear, inputs: Tensor, grads: Tensor, clock: Clock) -> float:
    """Of the weight gradients of `down` for each of some samples, and the sums of their squares.

    `inputs` [B, T, in] and output gradients `grads` [B, T, out] are those of the samples.
    """

    def reduce() -> None:
        for _, of_samples in products(down, inputs, grads, 1, True):
            for product in of_samples:
                unit_sums(product, 1, 2)

    return clock.seconds(reduce) / len(inputs)


class Clock:
    """Times calls on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def once(self, call: Callable[[], object]) -> float:
        """Seconds of one call."""
        start = time.perf_counter()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def seconds(self, call: Callable[[], object]) -> float:
        """The median of repeats; the first one counts only where it takes `MOST` by itself."""
        return self.in_turns(call)[0]

    def in_turns(self, *calls: Callable[[], object]) -> list[float]:
        """The medians of calls that are compared: a change of the machine's speed is in all."""
        rounds: list[list[float]] = []
        while (total := sum(map(sum, rounds))) < LEAST or (len(rounds) <= REPEATS and total < MOST):
            rounds.append([self.once(call) for call in calls])
        return [statistics.median(times) for times in zip(*(rounds[1:] or rounds), strict=True)]
