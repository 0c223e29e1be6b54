"""Forward passes that resume at a decoder layer.

Where models differ from one layer on only, the hidden states at that layer's input are the same for
all of them: they are computed once, and each model runs the remaining layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.evaluation.perplexity import batches_of
from adapruner.models.streamed.layers import decoder_layers, in_order, is_streamed
from adapruner.models.streamed.passes import LayerRunner, replaced


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass once the hidden states are recorded."""


@torch.no_grad()
def prefix_states(model: Any, windows: Tensor, layer: int) -> list[Tensor]:
    """The hidden states at the input of decoder layer `layer`, [B, T, hidden] for each batch.

    The batches are those of `batches_of(windows)`, with `windows` int [M, T]; the states are on the
    device of the layer. Later layers are not computed.
    """
    device, batches = model.get_input_embeddings().weight.device, batches_of(windows)
    if is_streamed(model):
        runner = LayerRunner(model)
        streamed = [runner.enter(input_ids=batch.to(device).long()) for batch in batches]
        for index in in_order(model, slice(layer)):
            streamed = [runner.run(index, hidden) for hidden in streamed]
        return streamed
    states: list[Tensor] = []

    def record(_: nn.Module, args: Any) -> None:
        states.append(args[0].detach())
        raise _Stop

    handle = decoder_layers(model)[layer].register_forward_pre_hook(record)
    try:
        for batch in batches:
            try:
                model(batch.to(device).long(), use_cache=False, logits_to_keep=1)
            except _Stop:
                continue
    finally:
        handle.remove()
    return states


@contextmanager
def resumed(model: Any, layer: int, states: Tensor) -> Iterator[None]:
    """Within it, a forward pass gives layer `layer` the input `states` and skips those below.

    `states` [B, T, hidden] is the element of `prefix_states` for the batch that is passed, and the
    pass must not use a cache. The model is the same afterwards.
    """

    def substitute(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (states, *args[1:]), kwargs

    layers = decoder_layers(model)
    with ExitStack() as stack:
        for below in layers[:layer]:
            # Some layers return a tuple, of which the model takes the first element. Here that is a
            # part of `states`, which the next layer ignores: it is skipped or gets `states`.
            stack.enter_context(replaced(below, lambda *_, **__: states))
        handle = layers[layer].register_forward_pre_hook(substitute, with_kwargs=True)
        stack.callback(handle.remove)
        yield
