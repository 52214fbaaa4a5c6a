"""Losses for noisy labels: thin modules over :mod:`lightning_noisy.functional.losses`."""

from __future__ import annotations

from lightning_noisy.losses.active_negative import ActiveNegativeLoss, NormalizedNegativeCrossEntropy
from lightning_noisy.losses.active_passive import ActivePassiveLoss, MeanAbsoluteError, NormalizedCrossEntropy
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.losses.bootstrap import Bootstrap
from lightning_noisy.losses.correction import BackwardCorrection, ForwardCorrection
from lightning_noisy.losses.dynamics_aware import DynamicsAwareLoss
from lightning_noisy.losses.early_learning import EarlyLearningRegularization
from lightning_noisy.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from lightning_noisy.losses.noise_attention import NoiseAttentionLoss
from lightning_noisy.losses.symmetric_cross_entropy import ReverseCrossEntropy, SymmetricCrossEntropy

__all__ = [
    "ActiveNegativeLoss",
    "ActivePassiveLoss",
    "BackwardCorrection",
    "Bootstrap",
    "DynamicsAwareLoss",
    "EarlyLearningRegularization",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "MeanAbsoluteError",
    "NoiseAttentionLoss",
    "NoisyLabelLoss",
    "NormalizedCrossEntropy",
    "NormalizedNegativeCrossEntropy",
    "ReverseCrossEntropy",
    "SymmetricCrossEntropy",
]
