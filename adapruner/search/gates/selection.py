"""From the logits of gates to what each layer keeps, at the budget.

One threshold on all logits decides: of each group of gates, as many stay as lie above it, rounded
to a multiple of `round_to`. Lowering the threshold adds one multiple of one group at a time, until
the parameters are as near the budget as a step allows.
"""

from __future__ import annotations

from adapruner.errors import UnreachableError
from adapruner.pruning.allocation.attention import highest
from adapruner.pruning.target import PruningTarget
from adapruner.search.gates.hypernetwork import Logits
from adapruner.search.gates.training import Budget

Kept = list[dict[str, list[int]]]
"""For each layer, kind of gates -> the indices that stay, ascending."""


def select(logits: Logits, budget: Budget, target: PruningTarget) -> Kept:
    """The indices of the open gates; the parameters are within half a step of the budget.

    Raises UnreachableError where one multiple of each group is too much, and where nothing would be
    removed.
    """
    sizes = _sizes(logits, budget, target)
    return [
        {kind: highest(values, own[kind]) for kind, values in of_layer.items()}
        for of_layer, own in zip(logits, sizes, strict=True)
    ]


def _sizes(logits: Logits, budget: Budget, target: PruningTarget) -> list[dict[str, int]]:
    """For each layer, kind of gates -> how many stay."""
    multiple, layers = target.pruning.round_to, target.structures.layers
    sizes = [{kind: min(multiple, len(v)) for kind, v in own.items()} for own in logits]
    params = [budget.layer_params(*layer) for layer in zip(layers, sizes, strict=True)]
    if sum(params) > budget.kept:
        advice = ", or protect fewer layers (protect_first, protect_last)"
        raise UnreachableError(
            f"{target} can't be reached in layout {target.pruning.layout}: widths of {multiple} "
            f"everywhere keep {sum(params) - budget.kept:,} parameters too many; lower "
            f"pruning.ratio{advice if target.protected else ''}"
        )
    missing = budget.kept - sum(params)
    for _, layer, kind, size in _steps(logits, multiple):
        wider = sizes[layer] | {kind: size}
        added = budget.layer_params(layers[layer], wider) - params[layer]
        if 2 * missing < added:
            return sizes
        sizes[layer], params[layer] = wider, params[layer] + added
        missing -= added
    raise UnreachableError(
        f"{target} rounds to nothing: widths are multiples of {multiple}; raise pruning.ratio or "
        "lower pruning.round_to"
    )


def _steps(logits: Logits, multiple: int) -> list[tuple[float, int, str, int]]:
    """(threshold, layer, kind, size): below the threshold, the group rounds to that size.

    The highest threshold is first.
    """
    steps = []
    for layer, own in enumerate(logits):
        for kind, values in own.items():
            ranked = values.sort(descending=True).values.tolist()
            for size in range(multiple, len(values), multiple):
                last = min(size + (multiple + 1) // 2, len(values)) - 1
                steps.append((ranked[last], layer, kind, min(size + multiple, len(values))))
    return sorted(steps, key=lambda step: -step[0])
