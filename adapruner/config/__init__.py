"""What a user may set: one frozen section per stage, unknown keys refused.

Every section is passed to the step of its stage, so a step depends on exactly what its section
says. Paths are relative to the working directory. Nothing here imports torch or Transformers, so
an invalid file is reported at once.
"""

from adapruner.config.base import SafeName, Section, Sources
from adapruner.config.calibration import CalibrationConfig
from adapruner.config.evaluation import EvaluationConfig, GateConfig, QualityConfig
from adapruner.config.export import ExportConfig, ServingConfig
from adapruner.config.model import DeviceConfig, ModelConfig
from adapruner.config.presets import presets
from adapruner.config.pruning import PruningConfig, ReconstructionConfig
from adapruner.config.recovery import FinetuneConfig, TeacherConfig
from adapruner.config.run import PlanConfig, RegistryConfig, RunConfig, with_preset
from adapruner.config.search import SearchConfig

__all__ = [
    "CalibrationConfig",
    "DeviceConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FinetuneConfig",
    "GateConfig",
    "ModelConfig",
    "PlanConfig",
    "PruningConfig",
    "QualityConfig",
    "ReconstructionConfig",
    "RegistryConfig",
    "RunConfig",
    "SafeName",
    "SearchConfig",
    "Section",
    "ServingConfig",
    "Sources",
    "TeacherConfig",
    "presets",
    "with_preset",
]
