"""The estimate of a run: the costs of its stages, and what this machine has."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from adapruner.config import RunConfig
from adapruner.estimation.stages import StageCost, costs
from adapruner.estimation.units import measure_units
from adapruner.estimation.whole import WholeModels, whole_models
from adapruner.estimation.workload import Workload
from adapruner.models.storage import checkpoint as ckpt
from adapruner.models.streamed.memory import available_on, total_on
from adapruner.models.structures import Structures, describe_model


class Estimate(NamedTuple):
    """The stages of a run with a model of these structures, and what the machine has.

    `whole`: the stages that are not streamed. Bytes: `memory` is available now, `most` if nothing
    else ran; `disk` is free.
    """

    structures: Structures
    dtype: str
    stages: Mapping[str, StageCost]
    whole: Mapping[str, WholeModels]
    memory: int
    most: int
    disk: int


def estimate(config: RunConfig, model_config: Any, where: str, folder: Path) -> Estimate:
    """The estimate of `config` for a model of a Transformers config, which comes from `where`.

    One layer with random weights is timed on the device of the run, for some seconds. `folder`
    is on the disk of the artifacts. Raises UserError for an unsupported architecture.
    """
    structures = describe_model(ckpt.model_without_weights(model_config, where))
    device, dtype = ckpt.device_of(config.model), ckpt.compute_dtype(config.model)
    length, used = config.calibration.sequence_length, getattr(torch, dtype)
    units = measure_units(model_config, structures, length, used, device)
    work = Workload(config, structures, model_config.vocab_size, units, used.itemsize)
    is_spread = config.model.device == "auto"
    while not folder.exists():
        folder = folder.parent
    return Estimate(
        structures,
        dtype,
        costs(work),
        whole_models(work),
        available_on(device, all_devices=is_spread),
        total_on(device, all_devices=is_spread),
        shutil.disk_usage(folder).free,
    )
