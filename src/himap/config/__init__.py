"""What a user can configure: schemas with their rules, composition, one-line errors. No torch in here."""

from himap.config.judge import JudgeConfig
from himap.config.schema import (
    ArchitectureConfig,
    EvaluateConfig,
    FlopsConfig,
    GenerationConfig,
    HardwareConfig,
    ModelConfig,
    PruningConfig,
    StageConfig,
    Table1Config,
    TaskConfig,
    TrackingConfig,
    identity,
    without_secrets,
)
from himap.config.slurm import ContainerConfig, SlurmConfig

__all__ = [
    "ArchitectureConfig",
    "ContainerConfig",
    "EvaluateConfig",
    "FlopsConfig",
    "GenerationConfig",
    "HardwareConfig",
    "JudgeConfig",
    "ModelConfig",
    "PruningConfig",
    "SlurmConfig",
    "StageConfig",
    "Table1Config",
    "TaskConfig",
    "TrackingConfig",
    "identity",
    "without_secrets",
]
