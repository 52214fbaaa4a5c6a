"""Losses for noisy labels: thin modules over :mod:`lightning_noisy.functional.losses`."""

from __future__ import annotations

from lightning_noisy.functional.losses import estimate_transition
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
from lightning_noisy.losses.bootstrapping import Bootstrapping
from lightning_noisy.losses.correction import BackwardCorrection, ForwardCorrection
from lightning_noisy.losses.cross_entropy import FocalLoss, Poly1CrossEntropy, TaylorCrossEntropy
from lightning_noisy.losses.deep_abstaining_classifier import DeepAbstainingClassifier
from lightning_noisy.losses.determinant_mutual_information import DeterminantMutualInformation
from lightning_noisy.losses.dynamics_aware import DynamicsAwareLoss
from lightning_noisy.losses.early_learning import EarlyLearningRegularization
from lightning_noisy.losses.generalized_cross_entropy import GeneralizedCrossEntropy
from lightning_noisy.losses.gradient_weight import gradient_weight
from lightning_noisy.losses.jensen_shannon import GeneralizedJensenShannonLoss, JensenShannonLoss
from lightning_noisy.losses.joint_optimization import JointOptimization
from lightning_noisy.losses.negative_learning import NegativeLearning, SelectiveNegativeLearning
from lightning_noisy.losses.noise_attention import NoiseAttentionLoss
from lightning_noisy.losses.normalized import (
    NormalizedCrossEntropy,
    NormalizedFocalLoss,
    NormalizedGeneralizedCrossEntropy,
)
from lightning_noisy.losses.paper_settings import paper_loss, paper_setting, published_losses
from lightning_noisy.losses.peer import PeerLoss
from lightning_noisy.losses.pencil import PencilLoss
from lightning_noisy.losses.positive_learning import SelectivePositiveLearning
from lightning_noisy.losses.sample_losses import per_sample
from lightning_noisy.losses.self_adaptive_training import SelfAdaptiveTraining
from lightning_noisy.losses.sparse_regularization import SparseRegularization
from lightning_noisy.losses.staged import StagedLoss
from lightning_noisy.losses.symmetric import MeanAbsoluteError, ReverseCrossEntropy, SymmetricCrossEntropy
from lightning_noisy.losses.truncated_generalized_cross_entropy import TruncatedGeneralizedCrossEntropy

__all__ = [
    "ActiveNegativeLoss",
    "ActivePassiveLoss",
    "AsymmetricExponentialLoss",
    "AsymmetricGeneralizedCrossEntropy",
    "AsymmetricUnhingedLoss",
    "BackwardCorrection",
    "BiTemperedLogisticLoss",
    "Bootstrapping",
    "DeepAbstainingClassifier",
    "DeterminantMutualInformation",
    "DynamicsAwareLoss",
    "EarlyLearningRegularization",
    "FocalLoss",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "GeneralizedJensenShannonLoss",
    "JensenShannonLoss",
    "JointOptimization",
    "MeanAbsoluteError",
    "NegativeLearning",
    "NoiseAttentionLoss",
    "NoisyLabelLoss",
    "NormalizedCrossEntropy",
    "NormalizedFocalLoss",
    "NormalizedGeneralizedCrossEntropy",
    "NormalizedNegativeCrossEntropy",
    "NormalizedNegativeFocalLoss",
    "PeerLoss",
    "PencilLoss",
    "Poly1CrossEntropy",
    "ReverseCrossEntropy",
    "SelectiveNegativeLearning",
    "SelectivePositiveLearning",
    "SelfAdaptiveTraining",
    "SparseRegularization",
    "StagedLoss",
    "SymmetricCrossEntropy",
    "TaylorCrossEntropy",
    "TruncatedGeneralizedCrossEntropy",
    "estimate_transition",
    "gradient_weight",
    "paper_loss",
    "paper_setting",
    "per_sample",
    "published_losses",
]
