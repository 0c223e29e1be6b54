"""Measures a latency table: forward passes of the model with all layers at one width.

The model itself runs, with slices of its own weights, so that caches, memory and the gaps between
operations are those of the cut model. Widths take turns, and a time counts relative to those of the
dense model before and after it: a machine's speed drifts.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sklearn.isotonic import isotonic_regression

from adapruner.config import DeviceConfig, PruningConfig
from adapruner.config.pruning import LatencyPhase
from adapruner.efficiency.decode import decode, synthetic_prompt
from adapruner.efficiency.latency_table import Curve, LatencyTable, Part, describe_hardware
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.structures import LayerWidths, Structures, describe_model, layer_modules
from adapruner.progress import announce, track
from adapruner.pruning.costs.costs import context_of, max_context_of, part_of
from adapruner.pruning.plan import LayerPlan, format_ranges
from adapruner.pruning.surgery import cut_for_now
from adapruner.pruning.target import Attention, PruningTarget

TURNS = 7, 31
"""Fewest and most turns, of which the medians count."""
SECONDS = 60
"""Up to this many, turns are added to the fewest."""
KNOTS = 4
"""Steps from the narrowest to the dense width at which a part is measured, at most.

On a busy machine, a few that are measured often are better than many.
"""
DECODED = 8
"""Tokens of which one pass of decoding is the mean."""

_Cut = Callable[[], AbstractContextManager[None]]
_Run = tuple[Part, float]
"""A part and the share of its width that is left."""


def measure_latency(checkpoint: Path, device: DeviceConfig, pruning: PruningConfig) -> LatencyTable:
    """The table of a checkpoint for the phase and the structures that `pruning` names.

    Raises UserError for a context that is longer than the model's.
    """
    tokens = context_of(pruning, max_context_of(checkpoint))
    model: Any = ckpt.load_model(checkpoint, device)
    structures = describe_model(model)
    attention = PruningTarget(structures, pruning).attention
    cuts = _cuts(model, structures, attention, pruning.round_to)
    prompt = synthetic_prompt(1, tokens, model.config.vocab_size)
    run = partial(_seconds, model, prompt, pruning.latency_of)
    turns = _announced_turns(len(cuts), run)
    total, ratios = _in_turns(cuts, run, turns)
    return LatencyTable(
        phase=pruning.latency_of,
        tokens=tokens,
        hardware=describe_hardware(device),
        repeats=turns,
        total_ns=1e9 * total,
        curves={part: _curve(part, ratios, 1e9 * total) for part in _parts(cuts)},
    )


def _seconds(model: Any, prompt: Any, phase: LatencyPhase) -> float:
    """Seconds of one forward pass in the phase."""
    if phase == "prefill":
        return decode(model, prompt, 1).prefill_s
    return decode(model, prompt, DECODED + 1).decode_s / DECODED


def _announced_turns(widths: int, run: Callable[[], float]) -> int:
    """The number of turns, whose cost is announced. The first run warms up."""
    run()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    turn_s = (2 * widths + 1) * min(seconds)
    turns = min(max(int(SECONDS / turn_s), TURNS[0]), TURNS[1])
    announce(
        f"latency: {turns} turns, each a forward pass at {widths} widths and {widths + 1} of the "
        f"dense model: {turns * turn_s:.0f} s, more where others compute"
    )
    return turns


def _in_turns(
    cuts: dict[_Run, _Cut], run: Callable[[], float], turns: int
) -> tuple[float, dict[_Run, float]]:
    """Seconds of the dense model, and the time of each cut relative to it; medians.

    The dense model runs before and after each cut one: a machine is at times slow for seconds.
    """
    totals: list[float] = []
    ratios: dict[_Run, list[float]] = {cut: [] for cut in cuts}
    for turn in track(range(turns), "latency"):
        order = list(cuts)
        random.Random(turn).shuffle(order)
        before = run()
        for cut in order:
            with cuts[cut]():
                seconds = run()
            after = run()
            ratios[cut].append(2 * seconds / (before + after))
            totals.append(after)
            before = after
    relative = {cut: statistics.median(values) for cut, values in ratios.items()}
    return statistics.median(totals), relative


def _curve(part: Part, ratios: dict[_Run, float], total: float) -> Curve:
    """The time of a part by its share: what the model takes more than without the part.

    It is the nearest curve that does not fall, by least squares.
    """
    times = {share: ratio for (name, share), ratio in ratios.items() if name == part} | {1.0: 1.0}
    without = times.pop(0.0)
    shares = sorted(times)
    rising = isotonic_regression([total * (times[share] - without) for share in shares], y_min=0.0)
    return Curve(shares=tuple(shares), ns=tuple(map(float, rising)))


def _parts(cuts: dict[_Run, _Cut]) -> list[Part]:
    return list(dict.fromkeys(part for part, _ in cuts))


def _cuts(
    model: Any, structures: Structures, attention: Attention, round_to: int
) -> dict[_Run, _Cut]:
    """Part and share -> what cuts the part in all layers; share 0: what leaves it out."""
    layers = structures.layers
    parts: dict[Part, Callable[[LayerWidths, float], LayerWidths]] = {
        part_of(widths): partial(_with_channels, round_to) for widths in layers
    }
    if attention != "none":
        parts["attention"] = partial(_with_heads, attention)
    cuts: dict[_Run, _Cut] = {}
    for part, narrowed in parts.items():
        is_cut = [part in ("attention", part_of(widths)) for widths in layers]
        cuts[part, 0.0] = partial(_left_out, model, part, is_cut)
        for knot in range(KNOTS):
            widths = [
                narrowed(dense, knot / KNOTS) if cut else dense
                for dense, cut in zip(layers, is_cut, strict=True)
            ]
            share = _size(part, widths) / _size(part, layers)
            if share < 1:
                kept = [_first(*pair) for pair in zip(layers, widths, strict=True)]
                cuts[part, share] = partial(cut_for_now, model, kept)
    return cuts


def _size(part: Part, layers: Sequence[LayerWidths]) -> int:
    """Heads of all layers, or channels of those that the part belongs to."""
    if part == "attention":
        return sum(widths.query_heads for widths in layers)
    return sum(widths.mlp_channels for widths in layers if part_of(widths) == part)


def _with_channels(round_to: int, dense: LayerWidths, share: float) -> LayerWidths:
    """The layer with this share of its channels, in multiples, at least one."""
    width = max(round(share * dense.mlp_width / round_to), 1) * round_to
    channels = dense.mlps * min(width, dense.mlp_width)
    return LayerWidths(channels, dense.query_heads, dense.kv_groups, dense.experts)


def _with_heads(attention: Attention, dense: LayerWidths, share: float) -> LayerWidths:
    """The layer with this share of its KV groups, or of the heads in each; at least one."""
    groups, members = dense.kv_groups, dense.heads_per_group
    if attention == "kv_groups":
        groups = max(round(share * groups), 1)
    else:
        members = max(round(share * members), 1)
    return LayerWidths(dense.mlp_channels, groups * members, groups, dense.experts)


def _first(dense: LayerWidths, widths: LayerWidths) -> LayerPlan:
    """Keeps the first structures of each kind: a time does not depend on which."""
    channels = [e * dense.mlp_width + c for e in range(dense.mlps) for c in range(widths.mlp_width)]
    members = range(widths.heads_per_group)
    heads = [g * dense.heads_per_group + m for g in range(widths.kv_groups) for m in members]
    return LayerPlan(mlp_channels=format_ranges(channels), query_heads=format_ranges(heads))


@contextmanager
def _left_out(model: Any, part: Part, is_cut: Sequence[bool]) -> Iterator[None]:
    """Within it, the modules of the part return their input."""
    name = "attention" if part == "attention" else "mlp"
    modules = [
        getattr(layer, name) for layer, cut in zip(layer_modules(model), is_cut, strict=True) if cut
    ]
    for module in modules:
        module.forward = _attended if name == "attention" else _same
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _same(hidden: Any) -> Any:
    return hidden


def _attended(hidden_states: Any, *_: Any, **__: Any) -> tuple[Any, None]:
    return hidden_states, None
