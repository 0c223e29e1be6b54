"""A backward pass that reduces each weight gradient as soon as it is computed and stores none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapruner.errors import UserError
from adapruner.importance.table import INPUT_PARTS
from adapruner.models.activations import runs_by_layer
from adapruner.models.experts import Expert, ExpertProjection, opened
from adapruner.models.head import LOGITS_AT_ONCE, decoder_output, head_logits
from adapruner.models.streamed.layers import in_order, is_streamed
from adapruner.models.streamed.passes import LayerRunner
from adapruner.models.streamed.states import HiddenStates, hidden_states
from adapruner.models.structures import (
    PROJECTIONS,
    LayerModules,
    Projection,
    describe_model,
    layer_modules,
    placed,
)
from adapruner.progress import track

Watched = Projection | Expert


class Seen(NamedTuple):
    """What one pass over a batch computed at a projection.

    `inputs` and, of down and output alone, `input_grads` are [B, T, in]; `outputs` and
    `output_grads` are [B, T, out].
    """

    inputs: Tensor
    outputs: Tensor
    output_grads: Tensor
    input_grads: Tensor | None = None


Sink = Callable[[int, str, Watched, Seen], None]
"""Gets layer, name, projection and what was seen of it."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits [n, V] in float32 and the next tokens [n] to the loss of n positions, in nats.

It is called for some positions of a batch after the other; the batch's loss is the sum.
"""


def token_losses(logits: Tensor, targets: Tensor, share: float = 1.0) -> Tensor:
    """The sum of the negative log-likelihoods, times `share`."""
    return share * F.cross_entropy(logits, targets, reduction="sum")


def backward(model: Any, tokens: Tensor, loss_of: Loss = token_losses) -> None:
    """Backward pass of the loss on `tokens`, int [B, T].

    No weight gets a gradient. Raises UserError for a loss that is not finite.
    """
    embedding = model.get_input_embeddings()
    tokens = tokens.to(embedding.weight.device).long()
    with torch.enable_grad():
        output = decoder_output(model, inputs_embeds=embedding(tokens).detach().requires_grad_())
        loss, grads = _of_positions(model, output, tokens, loss_of)
    if not torch.isfinite(loss):
        raise UserError(
            f"the model's loss is {loss.item()}, expected a finite number; check the weights, "
            "or use dtype: float32"
        )
    output.last_hidden_state.backward(grads)


def _of_positions(model: Any, output: Any, tokens: Tensor, loss_of: Loss) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient for the decoder's `output`, [B, T, hidden]."""
    hidden = output.last_hidden_state.detach()
    states, targets = hidden[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    grads, total = torch.empty_like(states), torch.zeros((), device=hidden.device)
    for start in range(0, len(targets), LOGITS_AT_ONCE):
        part = slice(start, start + LOGITS_AT_ONCE)
        some = states[None, part].clone().requires_grad_()
        logits = head_logits(model, output, some, targets[None, part])[0].float()
        loss = loss_of(logits, targets[part].to(logits.device))
        total += loss.detach().to(total.device)
        loss.backward()  # type: ignore[no-untyped-call]
        assert some.grad is not None
        grads[part] = some.grad[0]
    of_last = hidden.new_zeros(len(hidden), 1, hidden.shape[2])  # nothing is predicted from it
    return total, torch.cat([grads.view(len(hidden), -1, hidden.shape[2]), of_last], 1)


@dataclass(frozen=True)
class GradientPass:
    """One forward and backward pass over `batches`, each int [B, T], through the dense `model`.

    `sink_of` and `loss_of` give those of a batch by its number; see `watched` for `names`.
    """

    model: Any
    batches: Sequence[Tensor]
    sink_of: Callable[[int], Sink]
    loss_of: Callable[[int], Loss]
    names: Collection[str] = PROJECTIONS

    def layers(self, description: str) -> Iterator[int]:
        """Yields each layer once its sinks have seen all gradients, while it is in memory.

        A streamed model runs layer by layer, forward and then backward, with the same operations
        in each layer; every layer is read twice. Memory: beside a layer, the states of all batches
        at the inputs of all layers, which `hidden_states` may keep in files. A batch whose
        activations would be large runs layer by layer as well, see `activations.MOST`.
        """
        runner = LayerRunner(self.model)
        if is_streamed(self.model):
            yield from self._by_layer(runner, range(len(self.batches)), description)
            return
        structures, modules = describe_model(self.model), layer_modules(self.model)
        for number, batch in enumerate(track(self.batches, description)):
            if runs_by_layer(structures, batch.numel(), self.model.dtype.itemsize):
                for _ in self._by_layer(runner, [number]):
                    pass
                continue
            with watched(modules, self.sink_of(number), self.names):
                backward(self.model, batch, self.loss_of(number))
        yield from in_order(self.model)

    def _by_layer(
        self, runner: LayerRunner, numbers: Sequence[int], description: str = ""
    ) -> Iterator[int]:
        """Runs each layer on the batches `numbers`, forward and then, once more, with gradients."""
        modules = layer_modules(self.model)
        depth, tokens = len(modules), sum(self.batches[number].numel() for number in numbers)
        with hidden_states(self.model, tokens, depth + 1) as states:
            order = in_order(self.model)
            forward = track(order, description and f"{description}: forward", depth)
            self._forward(numbers, modules, runner, states, forward)
            for number in numbers:
                hidden = states.take(depth, number).requires_grad_()
                with runner.decoded(hidden):
                    backward(self.model, self.batches[number], self.loss_of(number))
                assert hidden.grad is not None
                states.put(depth, number, hidden.grad)
            order = in_order(self.model, slice(None, None, -1))
            for index in track(order, description and f"{description}: backward", depth):
                for number in numbers:
                    hidden = states.take(index, number).requires_grad_()
                    sink = partial(_of_layer, self.sink_of(number), index)
                    with watched(modules[index : index + 1], sink, self.names), torch.enable_grad():
                        output = runner.run(index, hidden)
                    grads = states.take(index + 1, number)
                    output.backward(grads.to(output.device))  # type: ignore[no-untyped-call]
                    assert hidden.grad is not None
                    states.put(index, number, hidden.grad)
                yield index

    def _forward(
        self,
        numbers: Sequence[int],
        modules: list[LayerModules],
        runner: LayerRunner,
        states: HiddenStates,
        order: Iterable[int],
    ) -> None:
        """Leaves the states at the input of each layer and the output of the last one.

        It runs what the backward pass will run again: kernels may depend on the need for gradients.
        """
        embedding = self.model.get_input_embeddings()
        for number in numbers:
            tokens = self.batches[number].to(embedding.weight.device).long()
            states.put(0, number, runner.enter(inputs_embeds=embedding(tokens)))
        for index in order:
            with watched(modules[index : index + 1], _ignore, self.names), torch.enable_grad():
                for number in numbers:
                    hidden = states.take(index, number).requires_grad_()
                    output = runner.run(index, hidden)
                    states.put(index, number, hidden)
                    states.put(index + 1, number, output)


def _ignore(*_: Any) -> None:
    pass


def _of_layer(sink: Sink, index: int, _: int, *rest: Any) -> None:
    """A sink for one layer alone, which `watched` counts as the first."""
    sink(index, *rest)


@contextmanager
def watched(
    layers: list[LayerModules], sink: Sink, names: Collection[str] = PROJECTIONS
) -> Iterator[None]:
    """Within it, `sink` gets the projections' inputs and outputs with their gradients, see `Seen`.

    Only the projections `names` are watched. Those of experts are watched expert by expert; tokens
    that an expert is not chosen for are 0 in its inputs, outputs and gradients.
    """

    def watch(
        layer: int, name: str, part: Projection, _: nn.Module, args: Any, output: Tensor
    ) -> None:
        rows = placed(part)[1]
        inputs, outputs = args[0].detach(), output.detach()[..., rows]

        def reduce(grad: Tensor, input_grad: Tensor | None = None) -> None:
            sink(layer, name, part, Seen(inputs, outputs, grad[..., rows], input_grad))

        _on_gradients(reduce, output, args[0] if name in INPUT_PARTS else None)

    def watch_expert(layer: int, name: str, part: Expert, inputs: Tensor, output: Tensor) -> None:
        seen = inputs.detach(), output.detach()

        def reduce(*grads: Tensor) -> None:
            sink(layer, name, part, Seen(*map(part.spread, (*seen, *grads))))

        if name in names:
            _on_gradients(reduce, output, inputs if name in INPUT_PARTS else None)

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            if isinstance(layer.down, ExpertProjection):
                stack.enter_context(opened(layer.down, partial(watch_expert, index)))
            for name, part in layer.projections.items():
                if name in names and not isinstance(part, ExpertProjection):
                    module = placed(part)[0]
                    if name in INPUT_PARTS:
                        stack.callback(module.register_forward_pre_hook(_own_input).remove)
                    hook = partial(watch, index, name, part)
                    stack.callback(module.register_forward_hook(hook).remove)
        yield


def _own_input(_: nn.Module, args: Any) -> Any:
    """The arguments with another tensor of the same numbers, whose gradient is this module's."""
    return args[0].view_as(args[0]), *args[1:]


def _on_gradients(reduce: Callable[..., None], output: Tensor, inputs: Tensor | None) -> None:
    """Calls `reduce` in the backward pass with the gradients of `output`, and of `inputs` if any.

    The gradient of the inputs is computed after that of the output.
    """
    if inputs is None:
        output.register_hook(reduce)  # type: ignore[no-untyped-call]
        return
    grads: list[Tensor] = []
    output.register_hook(grads.append)  # type: ignore[no-untyped-call]
    inputs.register_hook(lambda grad: reduce(grads.pop(), grad))  # type: ignore[no-untyped-call]
