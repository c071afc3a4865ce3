"""Every setting with its default, unit and reason.

One closed, frozen tree per job, a file each. What holds is: default in the class < YAML file < `section.key=value`.
This package imports neither Ray nor torch, so that wrong settings fail in under a second.
"""

from pipeline.config.base import (
    Cosine,
    FaultsConfig,
    Fraction,
    ImagesConfig,
    PoolConfig,
    Precision,
    RayConfig,
    Section,
    ShardsConfig,
    StorageConfig,
    Template,
    TrackingConfig,
)
from pipeline.config.demo import DemoConfig, PortraitsConfig
from pipeline.config.describe import DescribeConfig
from pipeline.config.evaluate import EvaluateConfig, EvaluatorConfig
from pipeline.config.model import VARIANTS, ExportConfig, ImportConfig, ModelConfig, Variant
from pipeline.config.prepare import ClusterConfig, FilterConfig, PrepareConfig
from pipeline.config.preview import PreviewConfig
from pipeline.config.submit import DoctorConfig, JobsConfig, SubmitConfig
from pipeline.config.swap import (
    AnalysisConfig,
    AnonymiseConfig,
    MaskConfig,
    Policy,
    PolicyConfig,
    PoolsConfig,
    SelectionConfig,
    SwapConfig,
    SwapperConfig,
    SwapPoolConfig,
)
from pipeline.config.train import (
    AugmentationConfig,
    CheckpointsConfig,
    DiscriminatorConfig,
    DisguiseConfig,
    FeedConfig,
    LossConfig,
    OptimiserConfig,
    TrainConfig,
    TrainerConfig,
    ValidationConfig,
    WorkersConfig,
)
from pipeline.config.upkeep import EstimateConfig, GcConfig, RedriveConfig, StatusConfig
from pipeline.config.video import EncoderConfig, SegmentsConfig, SmoothingConfig, TracksConfig, VideosConfig

__all__ = [
    "VARIANTS",
    "AnalysisConfig",
    "AnonymiseConfig",
    "AugmentationConfig",
    "CheckpointsConfig",
    "ClusterConfig",
    "Cosine",
    "DemoConfig",
    "DescribeConfig",
    "DiscriminatorConfig",
    "DisguiseConfig",
    "DoctorConfig",
    "EncoderConfig",
    "EstimateConfig",
    "EvaluateConfig",
    "EvaluatorConfig",
    "ExportConfig",
    "FaultsConfig",
    "FeedConfig",
    "FilterConfig",
    "Fraction",
    "GcConfig",
    "ImagesConfig",
    "ImportConfig",
    "JobsConfig",
    "LossConfig",
    "MaskConfig",
    "ModelConfig",
    "OptimiserConfig",
    "Policy",
    "PolicyConfig",
    "PoolConfig",
    "PoolsConfig",
    "PortraitsConfig",
    "Precision",
    "PrepareConfig",
    "PreviewConfig",
    "RayConfig",
    "RedriveConfig",
    "Section",
    "SegmentsConfig",
    "SelectionConfig",
    "ShardsConfig",
    "SmoothingConfig",
    "StatusConfig",
    "StorageConfig",
    "SubmitConfig",
    "SwapConfig",
    "SwapPoolConfig",
    "SwapperConfig",
    "Template",
    "TrackingConfig",
    "TracksConfig",
    "TrainConfig",
    "TrainerConfig",
    "ValidationConfig",
    "Variant",
    "VideosConfig",
    "WorkersConfig",
]
