"""What each stage of a compression will take, from the configuration and the model's config alone.

Times are counts of passes over tokens, times the measured costs of a layer (`units`); memory and
disk are counts of numbers. Both leave out what is small in every model: scores, plans, reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from adapruner.estimation.workload import Workload
from adapruner.evaluation.behaviour import NEW_TOKENS, PROMPTS_AT_ONCE
from adapruner.importance.needs import gradient_groups
from adapruner.importance.statistics import MICRO_BATCH
from adapruner.models.activations import FLOAT
from adapruner.pruning.allocation.width_profile import REMOVED
from adapruner.pruning.sensitivity import WINDOWS
from adapruner.pruning.updates.gram_matrices import stored_bytes
from adapruner.recovery.training.teacher_logits import BYTES_PER_TOKEN

BACKWARD = 1.0
"""Backward pass / that of a layer to its inputs, which is timed."""

SUMS = 0.2
"""The sums over activations and their gradients / `BACKWARD`."""

MAGNITUDE = 1.5
"""Weight gradients that are reduced by two sums / by one."""

TRIAL = 0.7
"""The part of the objective text that a trial sees on average, as hopeless ones are stopped."""

TRAINED = {"lora": 1.6, "grouped": 2.0, "ast": 2.0}
"""Fine-tuning method -> its backward pass, and what it does to the weights, / `BACKWARD`."""

ADAPTED = 2
"""Activations with adapters / without: the outputs of both, and their sum."""

HASHED, CONVERTED, SCALED = 1e-9, 1e-7, 4e-9
"""Seconds: to copy and hash a byte of a checkpoint, to convert a weight of a GGUF file, to scale
and write a byte of a gram matrix."""

PROCESS = 10.0
"""Seconds: to start a process and import the libraries."""

SCRATCH = 2**27
"""Bytes that kernels and allocators hold beside the tensors: measured, the same for all sizes."""


class StageCost(NamedTuple):
    """Seconds, and bytes of memory beside the libraries and of disk."""

    seconds: float = 0.0
    memory: int = 0
    disk: int = 0


def load_model(work: Workload) -> StageCost:
    """Copying the checkpoint, or converting a GGUF file to float32."""
    params, source = work.structures.total_params, work.config.model.source
    if source.startswith("package:") or source.endswith(".gguf"):
        return StageCost(CONVERTED * params, 2 * FLOAT * params, FLOAT * params)
    return StageCost(2 * HASHED * work.weights)


def estimate_importance(work: Workload) -> StageCost:
    """The calibration pool forward and backward, with the statistics that the run reads."""
    calibration, search = work.config.calibration, work.config.search
    groups, samples = gradient_groups(work.config), calibration.pool_size
    tokens = samples * calibration.sequence_length
    seconds = work.forward(tokens, backward=BACKWARD + SUMS)
    gradients, by_sample = work.depth * work.units.fisher, {"fisher", "magnitude"} & set(groups)
    if "magnitude" in by_sample:
        seconds += samples * gradients * MAGNITUDE
    elif by_sample:
        seconds += samples * gradients
    if groups:
        seconds += search.set_size * gradients
    reference, batch = (n * calibration.sequence_length for n in (search.set_size, MICRO_BATCH))
    seconds += work.recomputed(reference, reference) + work.recomputed(tokens - reference, batch)
    held = max(work.held(reference), work.held(batch))
    channels = sum(widths.mlp_channels for widths in work.structures.layers)
    table = samples * channels * FLOAT * (5 + len(by_sample))
    return StageCost(seconds, work.weights + held, table * work.config.model.processes)


def compute_gram_matrices(work: Workload) -> StageCost:
    """The update samples through the layers, and X^T X of each down projection."""
    if work.config.reconstruction.method != "least_squares":
        return StageCost()
    tokens, widths = work.update_tokens, work.structures.layers[0]
    matrices = widths.mlps, widths.mlp_width, widths.mlp_width
    written = work.domains * work.depth * stored_bytes(matrices)
    return StageCost(
        work.layers(tokens) + tokens * work.depth * work.units.gram + SCALED * written,
        work.weights + work.states(tokens) + 3 * work.domains * work.gram_matrix(),
        written,
    )


def search(work: Workload) -> StageCost:
    """The trials and finalists on the objective and the held-out text; the layers' sensitivity."""
    settings, calibration = work.config.search, work.config.calibration
    objective = calibration.objective_tokens
    held_out = calibration.held_out_tokens or objective
    update = work.update * (work.config.reconstruction.method == "least_squares")
    judged = update + work.forward(objective, work.kept)
    memory = work.weights + 3 * work.gram_matrix() + work.states(objective)
    if settings.planner == "gates":
        return StageCost(memory=memory)
    if not settings.is_searched:
        return StageCost(work.forward(objective) + judged, memory)
    seconds = 2 * work.forward(objective + held_out) + settings.trials * TRIAL * judged
    seconds += (settings.finalists + 5) * (update + work.forward(held_out, work.kept))
    if "widths" in settings.vary and work.config.pruning.layout == "per_layer":
        window = min(WINDOWS * calibration.sequence_length, objective)
        batch = min(MICRO_BATCH * calibration.sequence_length, window)
        widths = work.structures.layers[0].mlp_channels + work.structures.hidden_size
        records = window * work.depth * widths * work.item
        memory = max(memory, work.weights + work.held(batch) + records)
        seconds += work.forward(window, backward=BACKWARD) + work.recomputed(window, batch)
        if update:
            seconds += work.depth * (len(REMOVED) * work.units.solve + work.mixing)
    return StageCost(seconds, memory)


def prune(work: Workload) -> StageCost:
    """The update samples twice through the layers, the update, and the epochs of each cut MLP."""
    settings, sizes = work.config.reconstruction, work.structures
    written = int(work.weights * work.kept)
    if settings.method != "least_squares":
        tokens = work.config.calibration.pool_size * work.config.calibration.sequence_length
        return StageCost(work.layers(tokens) * (settings.method != "none"), work.weights, written)
    if settings.is_by_matrices:
        memory = work.weights + 3 * work.gram_matrix() + written
        return StageCost(work.update, memory, written)
    tokens = work.update_tokens
    mlp = sizes.layers[0].mlp_channels * sizes.channel_params
    share = mlp * work.cut_layers / sizes.block_params
    fitted = 3 * settings.epochs * share * work.kept
    seconds = work.layers(tokens) * (2 + fitted) + tokens * work.cut_layers * work.units.gram
    text = 3 * work.states(tokens) + 3 * work.gram_matrix()
    updated = int(share * written) + 4 * FLOAT * mlp * bool(settings.epochs)
    seconds += work.cut_layers * work.units.solve
    return StageCost(seconds, work.weights + text + updated, written)


def compute_teacher_logits(work: Workload) -> StageCost:
    """The examples of fine-tuning through the dense model."""
    teacher = work.config.finetune.teacher
    if teacher is None:
        return StageCost()
    tokens = teacher.examples * teacher.sequence_length
    disk = tokens * teacher.top_k * BYTES_PER_TOKEN
    return StageCost(work.forward(tokens) + tokens * work.units.head, work.weights + disk, disk)


def finetune(work: Workload) -> StageCost:
    """The steps of fine-tuning, without the loading and writing of the model."""
    settings = work.config.finetune
    if not settings.is_enabled:
        return StageCost()
    batch = settings.batch_size * settings.sequence_length
    backward = TRAINED.get(settings.method, 2.0) + settings.recomputes
    depth = 1 if settings.recomputes else work.depth
    written = int(work.weights * work.kept)
    return StageCost(
        settings.steps * work.forward(batch, work.kept, backward),
        written + work.activations(batch, depth, work.kept) * ADAPTED,
        written,
    )


def evaluate(work: Workload) -> StageCost:
    """Of the texts, by the dense, the pruned and the fine-tuned model; tasks are not included."""
    settings = work.config.evaluation
    windows = (len(settings.texts) or work.domains) * (settings.max_windows or 0)
    tokens = windows * settings.sequence_length
    models = 2 if work.config.finetune.is_enabled else 1
    return StageCost(work.forward(tokens) + models * work.forward(tokens, work.kept), work.weights)


def measure_efficiency(work: Workload) -> StageCost:
    """Prefill and decode of the dense and the pruned model, and one turn that is not counted.

    One more turn, at the longest prompt, is for the peak memory, in a process of its own.
    """
    settings = work.config.evaluation
    if not settings.speed:
        return StageCost()

    def turn(batch: int, prompt: int) -> float:
        step = work.depth * work.units.decode + work.layers(batch)
        return work.layers(batch * prompt) + settings.new_tokens * step

    seconds = (settings.repeats + 1) * sum(
        turn(batch, prompt) for batch in settings.batch_sizes for prompt in settings.prompt_tokens
    )
    if settings.peak_memory:
        seconds += turn(1, max(settings.prompt_tokens))
    apart = PROCESS * settings.peak_memory
    return StageCost((1 + work.kept) * seconds + apart, work.both_models)


def measure_recovery(work: Workload) -> StageCost:
    """Two steps of fine-tuning in a process of its own; the speed in 4 bit is not included."""
    if not work.is_recovery_measured:
        return StageCost()
    tuning, steps = finetune(work), work.config.finetune.steps
    seconds = PROCESS + min(2 / steps, 1) * tuning.seconds + 2 * HASHED * tuning.disk
    return StageCost(seconds, tuning.memory)


def compare_behaviour(work: Workload) -> StageCost:
    """Continuations by three models, and the windows on which they are compared."""
    settings = work.config.evaluation
    texts = len(settings.texts) or work.domains
    windows = texts * settings.behaviour_windows * settings.sequence_length
    batches = math.ceil(len(settings.prompts) / PROMPTS_AT_ONCE)
    step = batches * work.depth * work.units.decode + work.forward(len(settings.prompts))
    seconds = 3 * NEW_TOKENS * step + 4 * work.forward(windows)
    return StageCost(seconds, work.both_models)


STAGES: dict[str, Callable[[Workload], StageCost]] = {
    stage.__name__: stage
    for stage in (
        load_model, estimate_importance, compute_gram_matrices, search, prune,
        compute_teacher_logits, finetune, evaluate, measure_efficiency, measure_recovery,
        compare_behaviour,
    )
}  # fmt: skip
"""Step -> its cost, in the order of the pipeline; the steps that are left out take seconds."""


def costs(work: Workload) -> dict[str, StageCost]:
    """The cost of each step that takes more than seconds, in the order of the pipeline."""
    return {
        name: cost._replace(memory=cost.memory + SCRATCH * (cost.memory > 0))
        for name, cost in ((name, cost_of(work)) for name, cost_of in STAGES.items())
    }
