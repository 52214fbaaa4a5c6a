"""Callbacks: each works in our module and in any Lightning project."""

from lightning_noisy.callbacks.attention_tracker import AttentionTracker
from lightning_noisy.callbacks.averaged_weights import AveragedWeights
from lightning_noisy.callbacks.cdr import CDR
from lightning_noisy.callbacks.channels_last import ChannelsLast
from lightning_noisy.callbacks.confidence_tracker import ConfidenceTracker
from lightning_noisy.callbacks.correction_tracker import CorrectionTracker
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.callbacks.gradient_bias_tracker import GradientBiasTracker
from lightning_noisy.callbacks.gradient_error_tracker import GradientErrorTracker
from lightning_noisy.callbacks.gradient_share_tracker import GradientShareTracker
from lightning_noisy.callbacks.gradient_switching import GradientSwitching
from lightning_noisy.callbacks.joint_optimization_labels import JointOptimizationLabels
from lightning_noisy.callbacks.label_issue_report import LabelIssueReport
from lightning_noisy.callbacks.label_writer import LabelWriter
from lightning_noisy.callbacks.loss_memory import LossMemory
from lightning_noisy.callbacks.mask_refresh import MaskRefresh
from lightning_noisy.callbacks.mask_tracker import MaskTracker
from lightning_noisy.callbacks.memorization_tracker import MemorizationTracker
from lightning_noisy.callbacks.mix_up import MixUp
from lightning_noisy.callbacks.parameter_schedule import DALSchedule, ParameterSchedule
from lightning_noisy.callbacks.pool_tracker import PoolTracker
from lightning_noisy.callbacks.posterior_writer import PosteriorWriter
from lightning_noisy.callbacks.prediction_writer import PredictionWriter
from lightning_noisy.callbacks.run_summary import RunSummary
from lightning_noisy.callbacks.selc import SELC
from lightning_noisy.callbacks.step_seed import StepSeed
from lightning_noisy.callbacks.training_dynamics import TrainingDynamics

__all__ = [
    "CDR",
    "SELC",
    "AttentionTracker",
    "AveragedWeights",
    "ChannelsLast",
    "ConfidenceTracker",
    "CorrectionTracker",
    "CriterionCallback",
    "DALSchedule",
    "GradientBiasTracker",
    "GradientErrorTracker",
    "GradientShareTracker",
    "GradientSwitching",
    "JointOptimizationLabels",
    "LabelIssueReport",
    "LabelWriter",
    "LossMemory",
    "MaskRefresh",
    "MaskTracker",
    "MemorizationTracker",
    "MixUp",
    "ParameterSchedule",
    "PoolTracker",
    "PosteriorWriter",
    "PredictionWriter",
    "RunSummary",
    "StepSeed",
    "TrainingDynamics",
]
