"""Optimizers and learning-rate schedules that torch does not have."""

from lightning_noisy.optim.schedules import CosineDecay, CosineToConstant, LinearDecay
from lightning_noisy.optim.sharpness_aware import SAM
from lightning_noisy.optim.warmup import Warmup, scheduler_configs

__all__ = ["SAM", "CosineDecay", "CosineToConstant", "LinearDecay", "Warmup", "scheduler_configs"]
