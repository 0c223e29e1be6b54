"""Passes that run one decoder layer on all their batches before the next layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from adapruner.models.streamed.layers import decoder_layers, in_order, is_streamed
from adapruner.models.streamed.states import hidden_states


def forward_passes(
    model: Any, batches: Sequence[Tensor], start: tuple[int, Sequence[Tensor]] | None = None
) -> Iterator[Tensor]:
    """Yields each of `batches`, int [B, T]; `model` is to be called once with it in its turn.

    Layers of a streamed model have run on all batches by then: the call computes the logits from
    the last layer's output. With a `start`, the first layer that runs and its input for each batch,
    [B, T, hidden], those below do not run. Another model computes everything in that call.
    """
    if not is_streamed(model):
        yield from batches
        return
    runner, device = LayerRunner(model), model.get_input_embeddings().weight.device
    with hidden_states(model, sum(batch.numel() for batch in batches)) as states:
        first, inputs = start or (0, ())
        for number, batch in enumerate(batches):
            entered = runner.enter(input_ids=batch.to(device).long())
            states.put(0, number, inputs[number] if inputs else entered)
        for index in in_order(model, slice(first, None)):
            for number in range(len(batches)):
                with torch.no_grad():
                    states.put(0, number, runner.run(index, states.take(0, number)))
        for number, batch in enumerate(batches):
            with runner.decoded(states.take(0, number)):
                yield batch


class LayerRunner:
    """Runs single decoder layers of a model with the arguments that the model gives them."""

    def __init__(self, model: Any) -> None:
        self.model, self.layers = model, decoder_layers(model)
        self._arguments: dict[torch.Size, list[dict[str, Any]]] = {}
        self._in_tuple: bool | None = None  # whether layers return their output in a tuple

    @torch.no_grad()
    def enter(self, **inputs: Tensor) -> Tensor:
        """The input of the first layer, [B, T, hidden], for the inputs of a forward pass.

        Arguments of the layers, which depend on B and T alone, are recorded once for each. The
        layers compute nothing, but for the first one at the very first call.
        """
        entered: list[Tensor] = []
        arguments: list[dict[str, Any]] = []

        def record(_: nn.Module, args: Any, kwargs: Any) -> None:
            if not entered:
                entered.append(args[0].detach())
                if args[0].shape[:2] in self._arguments:
                    raise _Stop
            arguments.append(kwargs)
            if len(arguments) == len(self.layers) and self._in_tuple is not None:
                raise _Stop  # the logits would need copies of the head

        with ExitStack() as stack:
            for layer in self.layers:
                hook = layer.register_forward_pre_hook(record, with_kwargs=True)
                stack.callback(hook.remove)
            if self._in_tuple is None:
                stack.callback(self.layers[0].register_forward_hook(self._note).remove)
            for layer in self.layers[self._in_tuple is None :]:
                stack.enter_context(replaced(layer, lambda hidden, *_, **__: self._form(hidden)))
            with suppress(_Stop):
                self.model(**inputs, use_cache=False, logits_to_keep=1)
        self._arguments.setdefault(entered[0].shape[:2], arguments)
        return entered[0]

    def run(self, index: int, hidden: Tensor) -> Tensor:
        """The output of a layer for its input `hidden`, both [B, T, hidden]."""
        output = self.layers[index](hidden, **self._arguments[hidden.shape[:2]][index])
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states

    @contextmanager
    def decoded(self, hidden: Tensor) -> Iterator[None]:
        """Within it, the layers compute nothing and the last one returns `hidden`."""
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(replaced(layer, lambda *_, **__: self._form(hidden)))
            yield

    def _note(self, _: nn.Module, __: Any, output: Any) -> None:
        self._in_tuple = isinstance(output, tuple)

    def _form(self, hidden: Tensor) -> Any:
        return (hidden,) if self._in_tuple else hidden


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass once an input is recorded."""


@contextmanager
def replaced(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within it, `layer` has this forward pass."""
    own = vars(layer).get("forward")  # of a model that is streamed, or spread over devices
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own
