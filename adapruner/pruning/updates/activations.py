"""Streams samples through the decoder layers, one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.models.experts import Expert, ExpertProjection, opened
from adapruner.models.streamed.passes import LayerRunner

Down = nn.Linear | ExpertProjection

MICRO_BATCH = 8
"""Samples of one forward pass."""

PANEL = 256
"""Columns of X that are multiplied at once for X^T X."""


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass once an input is recorded."""


@dataclass(frozen=True, eq=False)
class MlpText:
    """An MLP on a text of n tokens: its `inputs` and `outputs`, [n, hidden].

    `gram` is X^T X of the inputs X of its output projection, float32 [C, C], in which each token
    counts with its weight in `weights` [n]. Of experts it is that of each, [E, C, C].
    """

    inputs: Tensor
    outputs: Tensor
    weights: Tensor
    gram: Tensor


class ActivationStream:
    """The hidden states of all samples at the input of one layer, which `advance` moves forward.

    A layer of a streamed model has to be in memory, see `streamed.layers.in_order`. Memory: one
    hidden state per token.
    """

    def __init__(self, model: Any, tokens: Tensor) -> None:
        """`tokens` is int [N, T]; the stream starts at the first layer."""
        self.runner = LayerRunner(model)
        self.position = 0
        device = model.get_input_embeddings().weight.device
        batches = torch.split(tokens, MICRO_BATCH)
        self.hidden = [self.runner.enter(input_ids=batch.to(device).long()) for batch in batches]

    @torch.no_grad()
    def observe(self, mlp: nn.Module, down: Down, weights: Tensor | None = None) -> MlpText:
        """What the MLP of the current layer, with the projection `down`, computes.

        The tokens of sample n count with `weights[n]`, all with 1 where it is None.
        """
        inputs = [self._input_of(mlp, hidden) for hidden in self.hidden]
        with _summed_gram(down, self._split(weights)) as gram:
            outputs = [mlp(batch) for batch in inputs]
        samples, tokens = sum(map(len, inputs)), inputs[0].shape[1]
        each = torch.ones(samples) if weights is None else weights
        return MlpText(
            inputs=torch.cat(inputs).flatten(0, 1),
            outputs=torch.cat(outputs).flatten(0, 1),
            weights=each.repeat_interleave(tokens).to(gram.device),
            gram=gram,
        )

    def advance_with_gram(self, down: Down) -> Tensor:
        """`advance`, and X^T X of the inputs X of `down` in the layer that is passed."""
        with _summed_gram(down, self._split(None)) as total:
            self.advance()
        return total

    @torch.no_grad()
    def advance(self) -> None:
        """Replaces the hidden states by the output of the current layer and moves to the next."""
        self.hidden = [self._run(hidden) for hidden in self.hidden]
        self.position += 1

    def _input_of(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """The input of `module` where the current layer gets `hidden`."""
        inputs: list[Tensor] = []

        def record(_: nn.Module, args: Any) -> None:
            inputs.append(args[0])
            raise _Stop

        handle = module.register_forward_pre_hook(record)
        try:
            self._run(hidden)
        except _Stop:
            pass
        finally:
            handle.remove()
        return inputs[0]

    def _split(self, weights: Tensor | None) -> Iterator[Tensor | None]:
        """The weights of the samples of each batch."""
        if weights is None:
            return repeat(None)
        return iter(torch.split(weights, MICRO_BATCH))

    def _run(self, hidden: Tensor) -> Tensor:
        return self.runner.run(self.position, hidden)


@contextmanager
def _summed_gram(down: Down, weights: Iterator[Tensor | None]) -> Iterator[Tensor]:
    """Within it, X^T X of the inputs of `down`, [B, T, in] at each call, is added to a sum.

    Of experts it is the sum of each. Products of bfloat16 inputs are rounded to bfloat16 for each
    batch and summed in float32.
    """
    device = down.device if isinstance(down, ExpertProjection) else down.weight.device
    total = torch.zeros(gram_shape(down), device=device)
    batch: list[Tensor | None] = []

    def begin(_: nn.Module, __: Any) -> None:
        batch[:] = [next(weights)]

    def add(part: Tensor, rows: Tensor, samples: Tensor) -> None:
        if batch[0] is not None:
            rows = rows * batch[0].sqrt().to(rows)[samples].unsqueeze(-1)
        rows = rows.float() if rows.dtype == torch.float16 else rows  # its range is too small
        add_gram(part, rows)

    def add_all(_: nn.Module, args: Any) -> None:
        count, tokens = args[0].shape[:2]
        samples = torch.arange(count, device=args[0].device).repeat_interleave(tokens)
        add(total, args[0].flatten(0, 1), samples)

    def add_expert(name: str, expert: Expert, rows: Tensor, _: Tensor) -> None:
        if name == "down":
            index = expert.channels.start // total.shape[-1]
            add(total[index], rows, expert.rows // expert.shape[-1])

    with ExitStack() as stack:
        if isinstance(down, ExpertProjection):
            stack.callback(down.block.register_forward_pre_hook(begin).remove)
            stack.enter_context(opened(down, add_expert))
        else:
            stack.callback(down.register_forward_pre_hook(begin).remove)
            stack.callback(down.register_forward_pre_hook(add_all).remove)
        yield total
    _mirror(total)


def add_gram(total: Tensor, rows: Tensor) -> None:
    """Adds X^T X of the rows X, [n, C], to `total`, float32 [C, C], on and above the diagonal.

    That is little more than half of the operations of the whole product. Blocks of PANEL columns
    on the diagonal are complete; what is below them is left to `_mirror`.
    """
    for start in range(0, rows.shape[1], PANEL):
        end = start + PANEL
        total[start:end, start:].add_(rows[:, start:end].T @ rows[:, start:])


def _mirror(total: Tensor) -> None:
    """Copies what is above the diagonal of matrices [..., C, C] below it."""
    for start in range(0, total.shape[-1], PANEL):
        end = start + PANEL
        total[..., end:, start:end] = total[..., start:end, end:].mT


def gram_shape(down: Down) -> tuple[int, ...]:
    """The shape of X^T X of the inputs of `down`: [C, C], or of experts [E, C, C]."""
    if isinstance(down, ExpertProjection):
        experts, channels = down.weights.shape
        return experts, channels, channels
    return down.in_features, down.in_features
