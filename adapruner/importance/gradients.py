"""A backward pass that reduces each weight gradient as soon as it is computed and stores none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapruner.errors import UserError
from adapruner.models.experts import Expert, ExpertProjection, opened
from adapruner.models.structures import PROJECTIONS, LayerModules, Projection, placed

Watched = Projection | Expert
Sink = Callable[[int, str, Watched, Tensor, Tensor], None]
Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits [B, T - 1, V] in float32 and the next tokens [B, T - 1] to a number, in nats."""


def mean_token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over the samples of their mean token losses."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return losses / targets.shape[1]


def backward(model: Any, tokens: Tensor, loss_of: Loss = mean_token_losses) -> None:
    """Backward pass of the loss on `tokens`, int [B, T].

    No weight gets a gradient. Raises UserError for a loss that is not finite.
    """
    embedding = model.get_input_embeddings()
    tokens = tokens.to(embedding.weight.device).long()
    inputs = embedding(tokens).detach().requires_grad_()
    with torch.enable_grad():
        logits = model(inputs_embeds=inputs, use_cache=False).logits[:, :-1].float()
        loss = loss_of(logits, tokens[:, 1:].to(logits.device))
    if not torch.isfinite(loss):
        raise UserError(
            f"the model's loss is {loss.item()}, expected a finite number; check the weights, "
            "or use dtype: float32"
        )
    loss.backward()  # type: ignore[no-untyped-call]


@contextmanager
def watched(
    layers: list[LayerModules], sink: Sink, names: Collection[str] = PROJECTIONS
) -> Iterator[None]:
    """Within it, `sink` gets layer, name, projection, input [B, T, in] and output gradient.

    Only the projections `names` are watched. Those of experts are watched expert by expert; tokens
    that an expert is not chosen for are 0 in its inputs and gradients.
    """

    def watch(
        layer: int, name: str, part: Projection, _: nn.Module, args: Any, output: Tensor
    ) -> None:
        inputs, rows = args[0].detach(), placed(part)[1]
        reduce: Any = lambda grad: sink(layer, name, part, inputs, grad[..., rows])  # noqa: E731
        output.register_hook(reduce)  # type: ignore[no-untyped-call]

    def watch_expert(layer: int, name: str, part: Expert, inputs: Tensor, output: Tensor) -> None:
        def reduce(grad: Tensor) -> None:
            sink(layer, name, part, part.spread(inputs.detach()), part.spread(grad))

        if name in names:
            output.register_hook(reduce)  # type: ignore[no-untyped-call]

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            if isinstance(layer.down, ExpertProjection):
                stack.enter_context(opened(layer.down, partial(watch_expert, index)))
            for name, part in layer.projections.items():
                if name in names and not isinstance(part, ExpertProjection):
                    hook = partial(watch, index, name, part)
                    stack.callback(placed(part)[0].register_forward_hook(hook).remove)
        yield


def with_bias(product: Tensor, delta: Tensor, module: Watched, columns: bool) -> Tensor:
    """`product` with units as rows; a bias is a further last column."""
    if columns:
        return product.T
    if module.bias is None:
        return product
    return torch.cat([product, (delta.sum(0) * module.bias.float()).unsqueeze(1)], 1)


def unit_sums(product: Tensor, rows: int) -> Tensor:
    """[3, units] on the CPU: sums, absolute sums and sums of squares over a unit's `rows` rows."""
    sums = torch.stack(
        [
            product.sum(1),
            torch.linalg.vector_norm(product, 1, dim=1),
            torch.linalg.vector_norm(product, 2, dim=1).square(),
        ]
    )
    return sums.view(3, -1, rows).sum(2).cpu()
