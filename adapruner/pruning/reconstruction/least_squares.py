"""Least-squares update of the output projections of cut MLPs.

What the removed channels of a layer contributed is put, as far as it is linear in what the kept
channels compute, into the kept columns of `down_proj`. With the layer's hidden activations X
[tokens, channels] on the calibration set, split into kept X_k and removed X_r, and the weights W
split alike, the update minimises

    |X W^T - X_k V^T|^2 + ridge * mean(diag(X^T X)) * |V - W_k|^2

over V, which gives V = W_k + W_r G_rk (G_kk + ridge * mean(diag G) I)^-1 with G = X^T X (the same
least squares as in SlimGPT, arXiv 2412.18110, and OSSCAR, arXiv 2403.12983). Layers are done in
order, each on what the cut and updated layers below it put out; only one layer's G is held at a
time (with an open ridge also that of the text it is chosen on).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapruner.models.families import family_of
from adapruner.pruning.plan import PruningPlan
from adapruner.progress import track
from adapruner.models.structures import describe_model, layer_modules
from adapruner.pruning.surgery import ATTENTION_PARTS, MLP_PARTS, check_fits, cut_layer, narrow_config

MICRO_BATCH = 8


RIDGES = (0.01, 0.03, 0.1, 0.3)
"""What is tried where the ridge is left open."""

RIDGE = 0.1
"""What is used where the ridge is left open and there is no text to choose it on."""


def apply_and_update(
    model: Any,
    plan: PruningPlan,
    tokens: Tensor,
    ridge: float | None,
    judged_on: Tensor | None = None,
    description: str = "",
) -> list[float]:
    """`surgery.apply`, with the update of every layer whose MLP is cut; returns the ridges used.

    `tokens`, int [N, T], is the calibration set. With `ridge` None each layer takes that of
    `RIDGES` whose update errs least on `judged_on`, int [M, T], text that the update is not
    computed from. The bar is shown only when there is a `description`.
    """
    structures = describe_model(model)
    check_fits(plan, structures)
    stream = Stream(model, tokens)
    judging = Stream(model, judged_on) if ridge is None and judged_on is not None else None
    chosen = []
    layers = list(zip(layer_modules(model), structures.layers, plan.layers, strict=True))
    for modules, dense, kept in track(layers, description) if description else layers:
        whole, channels = modules.down.weight.detach(), kept.channels()
        cut_layer(modules, dense, kept, structures.head_dim, ATTENTION_PARTS)
        if len(channels) < dense.mlp_channels:
            gram = stream.gram(modules.down)
            fresh = judging.gram(modules.down) if judging else None
            cut_layer(modules, dense, kept, structures.head_dim, MLP_PARTS)
            tried = [ridge or RIDGE] if fresh is None else RIDGES
            found = {r: updated(whole, gram, channels, r) for r in tried}
            best = min(found, key=lambda r: _error(whole, found[r], channels, fresh))
            modules.down.weight.data = found[best]
            chosen.append(best)
        for each in (stream, judging):
            if each is not None:
                each.advance()
    model.config = narrow_config(model.config, structures, plan)
    return chosen


def updated(weight: Tensor, gram: Tensor, kept: list[int], ridge: float) -> Tensor:
    """The kept columns of `weight` [out, C] after the update; `gram` is X^T X, float32 [C, C]."""
    mask = _mask(weight, kept)
    gram, whole = gram.to(weight.device).double(), weight.double()
    inner = gram[mask][:, mask]
    inner.diagonal().add_(ridge * gram.diagonal().mean().clamp_min(1e-30))
    moved = torch.linalg.solve(inner, gram[mask][:, ~mask] @ whole[:, ~mask].T)
    kept_columns: Tensor = whole[:, mask] + moved.T
    return kept_columns.to(weight.dtype)


def _error(weight: Tensor, narrow: Tensor, kept: list[int], gram: Tensor | None) -> float:
    """|X W^T - X_k V^T|^2 with V = `narrow` on the text that `gram` [C, C] is of; 0 without it."""
    if gram is None:
        return 0.0
    change = -weight.float()
    change[:, _mask(weight, kept)] += narrow.float()
    return float(((change @ gram.to(change.device)) * change).sum())


def _mask(weight: Tensor, kept: list[int]) -> Tensor:
    mask = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
    mask[kept] = True
    return mask


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass once the first layer's input is known."""


class Stream:
    """The calibration set's hidden states on their way through the layers, one layer at a time."""

    def __init__(self, model: Any, tokens: Tensor) -> None:
        family = family_of(model.config.model_type, model.config.architectures)
        self.layers = list(model.get_submodule(family.layers).children())
        self.position = 0
        self.hidden: list[Tensor] = []
        self.arguments: dict[int, list[dict[str, Any]]] = {}  # by batch size, then layer
        device = model.get_input_embeddings().weight.device
        for batch in torch.split(tokens, MICRO_BATCH):
            self._enter(model, batch.to(device).long())

    @torch.no_grad()
    def gram(self, linear: nn.Linear) -> Tensor:
        """X^T X of what goes into `linear` of the present layer, float32 [in, in]."""
        total = torch.zeros(linear.in_features, linear.in_features, device=linear.weight.device)

        def add(_: nn.Module, args: Any) -> None:
            rows = args[0].flatten(0, -2).float()
            total.addmm_(rows.T, rows)

        handle = linear.register_forward_pre_hook(add)
        for hidden in self.hidden:
            self._run(hidden)
        handle.remove()
        return total

    @torch.no_grad()
    def advance(self) -> None:
        """Replaces the hidden states by what the present layer makes of them; on to the next."""
        self.hidden = [self._run(hidden) for hidden in self.hidden]
        self.position += 1

    def _run(self, hidden: Tensor) -> Tensor:
        output = self.layers[self.position](hidden, **self.arguments[len(hidden)][self.position])
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found

    def _enter(self, model: Any, tokens: Tensor) -> None:
        """Notes the first layer's input, and, once a batch size, what else each layer is given."""
        known = len(tokens) in self.arguments
        given = self.arguments.setdefault(len(tokens), [])

        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            if module is self.layers[0]:
                self.hidden.append(args[0].detach())
                if known:
                    raise _Stop
            given.append(kwargs)

        handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in self.layers]
        try:
            with torch.no_grad():
                model(tokens, use_cache=False, logits_to_keep=1)
        except _Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()
