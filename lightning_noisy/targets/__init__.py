"""Targets that change at the criterion."""

from lightning_noisy.targets.call import AttentiveCriterion, DrawingChanger, TargetCall, TargetChanger, TargetObserver
from lightning_noisy.targets.criterion import CRITERION_NAMES, check_soft_targets, find_criterion
from lightning_noisy.targets.direction_pools import DirectionPools
from lightning_noisy.targets.loss_context import missing_context
from lightning_noisy.targets.pipeline import TargetPipeline
from lightning_noisy.targets.pipeline_at import pipeline_at

__all__ = [
    "CRITERION_NAMES",
    "AttentiveCriterion",
    "DirectionPools",
    "DrawingChanger",
    "TargetCall",
    "TargetChanger",
    "TargetObserver",
    "TargetPipeline",
    "check_soft_targets",
    "find_criterion",
    "missing_context",
    "pipeline_at",
]
