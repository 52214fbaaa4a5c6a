"""Losses for noisy labels: thin modules over :mod:`lightning_noisy.functional.losses`."""

from __future__ import annotations

from lightning_noisy.losses.active_negative import (
    ActiveNegativeLoss,
    NormalizedNegativeCrossEntropy,
    NormalizedNegativeFocalLoss,
)
from lightning_noisy.losses.active_passive import ActivePassiveLoss
from lightning_noisy.losses.asymmetric import (
    AsymmetricExponentialLoss,
    AsymmetricGeneralizedCrossEntropy,
    AsymmetricUnhingedLoss,
)
from lightning_noisy.losses.base import NoisyLabelLoss
from lightning_noisy.losses.bi_tempered import BiTemperedLogisticLoss
from lightning_noisy.losses.bootstrap import Bootstrap
from lightning_noisy.losses.correction import BackwardCorrection, ForwardCorrection
from lightning_noisy.losses.cross_entropy import FocalLoss, Poly1CrossEntropy, TaylorCrossEntropy
from lightning_noisy.losses.dynamics_aware import DynamicsAwareLoss
from lightning_noisy.losses.early_learning import EarlyLearningRegularization
from lightning_noisy.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from lightning_noisy.losses.jensen_shannon import GeneralizedJensenShannon, JensenShannon
from lightning_noisy.losses.noise_attention import NoiseAttentionLoss
from lightning_noisy.losses.normalized import (
    NormalizedCrossEntropy,
    NormalizedFocalLoss,
    NormalizedGeneralizedCrossEntropy,
)
from lightning_noisy.losses.sparse_regularization import SparseRegularization
from lightning_noisy.losses.symmetric import MeanAbsoluteError, ReverseCrossEntropy, SymmetricCrossEntropy

__all__ = [
    "ActiveNegativeLoss",
    "ActivePassiveLoss",
    "AsymmetricExponentialLoss",
    "AsymmetricGeneralizedCrossEntropy",
    "AsymmetricUnhingedLoss",
    "BackwardCorrection",
    "BiTemperedLogisticLoss",
    "Bootstrap",
    "DynamicsAwareLoss",
    "EarlyLearningRegularization",
    "FocalLoss",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "GeneralizedJensenShannon",
    "JensenShannon",
    "MeanAbsoluteError",
    "NoiseAttentionLoss",
    "NoisyLabelLoss",
    "NormalizedCrossEntropy",
    "NormalizedFocalLoss",
    "NormalizedGeneralizedCrossEntropy",
    "NormalizedNegativeCrossEntropy",
    "NormalizedNegativeFocalLoss",
    "Poly1CrossEntropy",
    "ReverseCrossEntropy",
    "SparseRegularization",
    "SymmetricCrossEntropy",
    "TaylorCrossEntropy",
]
