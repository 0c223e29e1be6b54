"""Cutting: applies a plan to a model.

`apply` cuts the model permanently; `narrowed` runs the model as if it were cut, slicing one layer
at a time so that no copy of the model is made. Both use the same slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapruner.errors import UserError
from adapruner.models.experts import ExpertProjection, ExpertWeights, separate
from adapruner.models.modeling import LayerConfig
from adapruner.models.streamed.layers import in_order
from adapruner.models.structures import (
    ATTENTION_PARTS,
    MLP_PARTS,
    PROJECTIONS,
    LayerModules,
    LayerWidths,
    Structures,
    describe_model,
    layer_modules,
    placed,
)
from adapruner.pruning.masks import hard_masks, masked
from adapruner.pruning.narrow_config import narrow_config
from adapruner.pruning.plan import LayerPlan, PruningPlan, kept_groups, kept_widths
from adapruner.pruning.residual import check_subsets, cut_subsets


def apply(model: Any, plan: PruningPlan) -> None:
    """Removes from `model`, in place, what `plan` does not keep, and sets the matching config."""
    for _ in cut_layers(model, plan):
        pass


def cut_layers(model: Any, plan: PruningPlan) -> Iterator[LayerModules]:
    """`apply`, one layer after the other; yields the modules of each while it is in memory."""
    structures = describe_model(model)
    check_fits(plan, structures)
    layers = layer_modules(model)
    for index in in_order(model):
        modules, dense, kept = layers[index], structures.layers[index], plan.layers[index]
        cut_layer(modules, dense, kept, structures.head_dim)
        if kept.residual is not None:
            cut_subsets(modules, kept.residual, structures.hidden_size)
        yield modules
    model.config = narrow_config(model.config, structures, plan)


def cut_layer(
    modules: LayerModules,
    dense: LayerWidths,
    kept: LayerPlan,
    head_dim: int,
    names: tuple[str, ...] = PROJECTIONS,
) -> None:
    """Removes from the named projections of one layer, in place, what the plan does not keep."""
    if isinstance(modules.down, ExpertProjection) and "down" in names:
        modules.down.put(modules.down.weights.keeping(kept.channels()))
    for cut in _cuts(modules, dense, kept, head_dim, names):
        weight, bias = cut.slices()
        _put(cut.linear, weight, bias)
        cut.linear.out_features, cut.linear.in_features = weight.shape
    if "query" in names:
        _set_heads(modules.attention, kept_widths(dense, kept))


def check_fits(plan: PruningPlan, structures: Structures) -> None:
    """Raises UserError for a plan that was made for other widths, removes coupled heads, or leaves
    fewer experts than are chosen for a token."""
    dense = tuple(map(vars, structures.layers))
    if (plan.model_type, plan.dense) != (structures.family.model_type, dense) or (
        len(plan.layers) != len(dense)
    ):
        raise UserError(
            f"the plan is for a {plan.model_type} of {len(plan.dense)} layers, the model is a "
            f"{structures.family.model_type} of {len(structures.layers)} with other widths; make a "
            "plan for it"
        )
    if structures.residual:
        raise UserError(
            "the model's layers read and write subsets of the residual stream; it can't be pruned "
            "again, prune the dense model"
        )
    check_subsets(plan, structures)
    fewest = structures.experts_per_token
    for index, (widths, kept) in enumerate(zip(structures.layers, plan.layers, strict=True)):
        count = kept_widths(widths, kept).experts  # raises UserError for indices it lacks
        if widths.experts and count < fewest:
            raise UserError(
                f"layer {index} keeps {count} of its experts, but each token needs {fewest}; keep "
                f"at least {fewest}"
            )
        if structures.family.couples_heads and len(kept.heads()) < widths.query_heads:
            raise UserError(
                f"the plan removes query heads, which {structures.family.architecture} normalises "
                "together; make a plan with pruning.attention: none"
            )


@contextmanager
def narrowed(
    model: Any, plan: PruningPlan, down: Mapping[int, Tensor] | None = None
) -> Iterator[None]:
    """Within it, `model` computes what the cut model would; afterwards it is the dense one again.

    A layer's slices exist only while that layer runs. `down` has updated down projections,
    [hidden, kept channels], by layer; other projections are slices. A plan with subsets of the
    residual stream is run with masks, without updates.
    """
    structures = describe_model(model)
    check_fits(plan, structures)
    if plan.has_subsets:
        with masked(model, hard_masks(structures, plan.layers)):
            yield
        return
    handles = []
    layers = zip(layer_modules(model), structures.layers, plan.layers, strict=True)
    for index, (modules, dense, kept) in enumerate(layers):
        updated = partial((down or {}).get, index)
        swap = _Swap(modules, dense, kept, structures.head_dim, updated)
        for module, is_cut in (
            (modules.mlp, len(kept.channels()) < dense.mlp_channels),
            (modules.attention, len(kept.heads()) < dense.query_heads),
        ):
            if is_cut:
                handles.append(module.register_forward_pre_hook(swap.enter))
                handles.append(module.register_forward_hook(swap.leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def cut_for_now(model: Any, kept: Sequence[LayerPlan]) -> Iterator[None]:
    """Within it, the weights of `model` are those of the cut model; afterwards it is dense again.

    All slices exist at once, so that each forward pass takes the time of the cut model's.
    """
    structures = describe_model(model)
    layers = zip(layer_modules(model), structures.layers, kept, strict=True)
    swaps = [_Swap(*layer, structures.head_dim, lambda: None) for layer in layers]
    try:
        for swap in swaps:
            swap.enter(swap.modules.mlp, None)
            swap.enter(swap.modules.attention, None)
        yield
    finally:
        for swap in swaps:
            swap.leave(swap.modules.mlp)
            swap.leave(swap.modules.attention)


class _Cut(NamedTuple):
    """The rows (axis 0) or columns (axis 1) of a linear layer that are kept."""

    linear: nn.Linear
    axis: int
    kept: Tensor

    def slices(self) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias after the cut."""
        weight = self.linear.weight.detach().index_select(self.axis, self.kept)
        bias: Tensor | None = self.linear.bias
        if bias is not None and self.axis == 0:
            bias = bias.detach().index_select(0, self.kept)
        return weight, bias


def _cuts(
    modules: LayerModules,
    dense: LayerWidths,
    kept: LayerPlan,
    head_dim: int,
    names: tuple[str, ...],
) -> Iterator[_Cut]:
    """The cuts of the linear layers of the named projections."""
    heads = kept.heads()
    rows = {
        "gate": kept.channels(),
        "up": kept.channels(),
        "query": _rows_of_heads(heads, head_dim),
        "key": _rows_of_heads(kept_groups(dense, heads), head_dim),
        "value": _rows_of_heads(kept_groups(dense, heads), head_dim),
    }
    columns = {"down": rows["gate"], "output": rows["query"]}
    of_linear: dict[nn.Linear, list[int]] = {}  # fused projections are cut together
    for name in names:
        if isinstance(modules.projections[name], ExpertProjection):
            continue  # see `ExpertWeights.keeping`
        linear, placement = placed(modules.projections[name])
        kept_here = (rows | columns)[name]
        of_linear.setdefault(linear, []).extend(placement.start + i for i in kept_here)
    for linear, indices in of_linear.items():
        axis = 1 if linear in (modules.down, modules.output) else 0
        yield _Cut(linear, axis, torch.tensor(indices, device=linear.weight.device))


def _rows_of_heads(heads: list[int], head_dim: int) -> list[int]:
    return [head * head_dim + row for head in heads for row in range(head_dim)]


def _set_heads(attention: Any, widths: LayerWidths) -> None:
    """Sets what an attention module derives from the head counts of its config."""
    attention.num_key_value_groups = widths.heads_per_group
    attention.num_key_value_heads = widths.kv_groups
    attention.config = LayerConfig(attention.config, widths.query_heads, widths.kv_groups)


def _put(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    linear.weight = _parameter(weight)
    if bias is not None:
        linear.bias = _parameter(bias)


def _parameter(tensor: Tensor) -> nn.Parameter:
    if isinstance(tensor, nn.Parameter):
        return tensor
    return nn.Parameter(tensor, requires_grad=False)


class _Swap:
    """Puts one layer's slices in place while its MLP or attention runs."""

    def __init__(
        self,
        modules: LayerModules,
        dense: LayerWidths,
        kept: LayerPlan,
        head_dim: int,
        updated: Callable[[], Tensor | None],
    ) -> None:
        """`updated` gives the updated down projection, if any, while the layer is whole."""
        self.modules, self.dense, self.kept, self.head_dim = modules, dense, kept, head_dim
        self.updated = updated
        self.cuts: dict[nn.Module, list[_Cut]] = {}
        self.whole: dict[nn.Linear, tuple[Tensor, Tensor | None]] = {}
        self.whole_experts: ExpertWeights | None = None
        self.config = modules.attention.config

    def enter(self, module: nn.Module, _: Any) -> None:
        names = MLP_PARTS if module is self.modules.mlp else ATTENTION_PARTS
        if module is self.modules.mlp and isinstance(self.modules.down, ExpertProjection):
            self._enter_experts(self.modules.down)
        if module not in self.cuts:
            cuts = _cuts(self.modules, self.dense, self.kept, self.head_dim, names)
            self.cuts[module] = list(cuts)
        for cut in self.cuts[module]:
            linear = cut.linear
            self.whole[linear] = (linear.weight, linear.bias)
            down = self.updated() if linear is self.modules.down else None
            _put(linear, *(cut.slices() if down is None else (down, linear.bias)))
        if module is self.modules.attention:
            _set_heads(module, kept_widths(self.dense, self.kept))

    def _enter_experts(self, projection: ExpertProjection) -> None:
        self.whole_experts = projection.weights
        narrow = self.whole_experts.keeping(self.kept.channels())
        if (down := self.updated()) is not None:
            narrow = replace(narrow, down=separate(down, len(narrow.router)))
        projection.put(narrow)

    def leave(self, module: nn.Module, *_: Any) -> None:
        if self.whole_experts is not None and isinstance(self.modules.down, ExpertProjection):
            self.modules.down.put(self.whole_experts)
            self.whole_experts = None
        for linear, (weight, bias) in self.whole.items():
            _put(linear, weight, bias)
        self.whole.clear()
        if module is self.modules.attention:
            _set_heads(module, self.dense)
            module.config = self.config
