"""Whether the formats and the runtime of a run can hold its result, before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adapruner.config import PruningConfig
from adapruner.config.pruning import RESIDUAL_SUBSETS
from adapruner.errors import UserError
from adapruner.export import format_module
from adapruner.export.contents import contents_of
from adapruner.serving_targets import TARGETS


def check_planned(
    checkpoint: Path, pruning: PruningConfig, prunes_heads: bool, to: tuple[str, ...]
) -> list[str]:
    """What will cost speed, as one line each.

    `checkpoint` is the dense one, `prunes_heads` says whether attention is pruned, `to` are the
    formats to export. Raises UserError for a format, or a target, that can't hold the result.
    """
    if to and pruning.layout == RESIDUAL_SUBSETS:
        raise UserError(
            f"export.to {to[0]} can't hold pruning.layout residual_subsets, which runs in "
            "Transformers alone; use per_layer or leave out export"
        )
    by_layer, target = pruning.layout == "per_layer", TARGETS[pruning.target]
    dense = contents_of(checkpoint)
    planned = replace(
        dense,
        layers_differ=by_layer,
        heads_differ=by_layer and prunes_heads,
        attention_is_square=dense.attention_is_square and not prunes_heads,
    )
    for name in dict.fromkeys((*target.formats, *to)):
        format_module(name).check_supported(planned)
    widths = {"pruning.round_to": pruning.round_to}
    if pruning.protect_first + pruning.protect_last and by_layer:
        widths["the width of the protected layers,"] = dense.layers[0].mlp_width
    return [
        f"{what} {width} is no multiple of {target.multiple}, which costs speed in "
        f"{pruning.target}: {target.why}"
        for what, width in widths.items()
        if width % target.multiple
    ]
