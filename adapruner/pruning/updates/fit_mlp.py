"""Fits all weights of a cut MLP to the output of the whole one.

The least-squares update changes the output projection alone, whose inputs are fixed by then. From
there, gradient descent on the same error, sum over tokens of w_t |MLP(x_t) - MLP_cut(x_t)|^2, also
changes what the kept channels compute (a window with a non-linear part; compare arXiv 2510.14444).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import get_cosine_schedule_with_warmup

from adapruner.pruning.updates.activations import MlpText

BATCH_TOKENS = 2048
"""Tokens of one step."""

RATE = 0.015
"""Learning rate of a matrix, as a share of the root mean square of its weights."""

WARMUP_STEPS = 10


def fit_mlp(mlp: nn.Module, text: MlpText, fresh: MlpText | None, epochs: int) -> None:
    """Fits the weights of the cut `mlp`, in place, to `text.outputs`.

    Batch i of n has every n-th token, so that all samples are in each. Weights that do not lower
    the error on `fresh`, text that they are not fitted on, are dropped. Memory: four copies of the
    MLP in float32.
    """
    old = {name: weight.detach() for name, weight in mlp.named_parameters()}
    new = {name: weight.float().clone().requires_grad_() for name, weight in old.items()}
    groups = [{"params": [w], "lr": RATE * w.detach().square().mean().sqrt()} for w in new.values()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98))
    # Odd: no common divisor with sequence lengths, so that all positions are in each batch.
    batches = len(text.inputs) // BATCH_TOKENS | 1
    steps = batches * epochs
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, steps + WARMUP_STEPS)
    for step in range(steps):
        optimizer.zero_grad()
        _error(mlp, new, text, slice(step % batches, None, batches)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    fitted = {name: weight.detach().to(old[name].dtype) for name, weight in new.items()}
    if fresh is None or _mean_error(mlp, fitted, fresh) < _mean_error(mlp, old, fresh):
        for name, weight in mlp.named_parameters():
            weight.data = fitted[name]


@torch.no_grad()
def _mean_error(mlp: nn.Module, weights: Mapping[str, Tensor], text: MlpText) -> float:
    """The mean of `_error` over batches of all tokens."""
    batches = len(text.inputs) // BATCH_TOKENS | 1
    errors = [_error(mlp, weights, text, slice(i, None, batches)) for i in range(batches)]
    return float(torch.stack(errors).mean())


def _error(mlp: nn.Module, weights: Mapping[str, Tensor], text: MlpText, rows: slice) -> Tensor:
    """The weighted squared error of the outputs of these tokens, relative to the outputs."""
    inputs, outputs = text.inputs[rows], text.outputs[rows].float()
    kind = torch.float32 if inputs.dtype == torch.float16 else inputs.dtype  # gradients underflow
    parameters = {name: weight.to(kind) for name, weight in weights.items()}
    result: Tensor = functional_call(mlp, parameters, (inputs.to(kind).unsqueeze(0),))[0]
    token_weights = text.weights[rows].unsqueeze(1)
    error = (token_weights * (result.float() - outputs).square()).sum()
    return error / (token_weights * outputs.square()).sum().clamp_min(1e-30)
