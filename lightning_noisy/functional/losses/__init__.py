"""Losses of logits and targets, one value per sample: no reduction, no state.

Every function takes logits (B, K) of any floating dtype, computes in float32 (float64 for float64 logits) and returns
losses (B,) of that dtype. Where a paper's code clamps a probability, so do these: the gradient through a clamped
probability is zero. Finite logits of any size give finite gradients, and finite values but for cross entropy and
Poly-1, which overflow where logits differ by more than the dtype holds.
"""

from __future__ import annotations

from lightning_noisy.functional.losses.active_negative import (
    ACTIVE_NEGATIVE,
    absolute_sum,
    active_negative_loss,
    entropy_regularization,
    normalized_negative_cross_entropy,
    normalized_negative_focal_loss,
)
from lightning_noisy.functional.losses.asymmetric import (
    asymmetric_exponential_loss,
    asymmetric_generalized_cross_entropy,
    asymmetric_unhinged_loss,
)
from lightning_noisy.functional.losses.bi_tempered import bi_tempered_logistic_loss, log_tempered_softmax
from lightning_noisy.functional.losses.bootstrapping import bootstrap_cross_entropy, soft_bootstrapping
from lightning_noisy.functional.losses.correction import backward_correction, estimate_transition, forward_correction
from lightning_noisy.functional.losses.correctness_ranking import correctness_ranking
from lightning_noisy.functional.losses.cross_entropy import (
    cross_entropy,
    focal_loss,
    poly1_cross_entropy,
    taylor_cross_entropy,
)
from lightning_noisy.functional.losses.deep_abstaining_classifier import abstention_terms
from lightning_noisy.functional.losses.determinant_mutual_information import (
    determinant_mutual_information,
    joint_distribution,
)
from lightning_noisy.functional.losses.divergence import symmetric_divergence
from lightning_noisy.functional.losses.dynamics_aware import dynamics_aware_loss
from lightning_noisy.functional.losses.early_learning import early_learning_penalty, early_learning_regularization
from lightning_noisy.functional.losses.generalized_cross_entropy import generalized_cross_entropy
from lightning_noisy.functional.losses.jensen_shannon import (
    generalized_jensen_shannon,
    log_mean_prediction,
    view_consistency,
)
from lightning_noisy.functional.losses.joint_optimization import divergence_from_uniform
from lightning_noisy.functional.losses.negative_learning import draw_negatives, negative_learning
from lightning_noisy.functional.losses.noise_attention import confidence_logits, noise_attention
from lightning_noisy.functional.losses.normalized import (
    normalized_cross_entropy,
    normalized_focal_loss,
    normalized_generalized_cross_entropy,
)
from lightning_noisy.functional.losses.peer import peer_loss, shuffled_labels
from lightning_noisy.functional.losses.pencil import label_divergence, pencil_loss
from lightning_noisy.functional.losses.probabilities import clipped_softmax, one_hot, softmax
from lightning_noisy.functional.losses.smoothing import smooth_losses, smoothed_labels
from lightning_noisy.functional.losses.sparse_regularization import sparsity_penalty, tempered_logits
from lightning_noisy.functional.losses.symmetric import (
    mean_absolute_error,
    reverse_cross_entropy,
    symmetric_cross_entropy,
)
from lightning_noisy.functional.losses.truncated_generalized_cross_entropy import truncated_generalized_cross_entropy

__all__ = [
    "ACTIVE_NEGATIVE",
    "absolute_sum",
    "abstention_terms",
    "active_negative_loss",
    "asymmetric_exponential_loss",
    "asymmetric_generalized_cross_entropy",
    "asymmetric_unhinged_loss",
    "backward_correction",
    "bi_tempered_logistic_loss",
    "bootstrap_cross_entropy",
    "clipped_softmax",
    "confidence_logits",
    "correctness_ranking",
    "cross_entropy",
    "determinant_mutual_information",
    "divergence_from_uniform",
    "draw_negatives",
    "dynamics_aware_loss",
    "early_learning_penalty",
    "early_learning_regularization",
    "entropy_regularization",
    "estimate_transition",
    "focal_loss",
    "forward_correction",
    "generalized_cross_entropy",
    "generalized_jensen_shannon",
    "joint_distribution",
    "label_divergence",
    "log_mean_prediction",
    "log_tempered_softmax",
    "mean_absolute_error",
    "negative_learning",
    "noise_attention",
    "normalized_cross_entropy",
    "normalized_focal_loss",
    "normalized_generalized_cross_entropy",
    "normalized_negative_cross_entropy",
    "normalized_negative_focal_loss",
    "one_hot",
    "peer_loss",
    "pencil_loss",
    "poly1_cross_entropy",
    "reverse_cross_entropy",
    "shuffled_labels",
    "smooth_losses",
    "smoothed_labels",
    "soft_bootstrapping",
    "softmax",
    "sparsity_penalty",
    "symmetric_cross_entropy",
    "symmetric_divergence",
    "taylor_cross_entropy",
    "tempered_logits",
    "truncated_generalized_cross_entropy",
    "view_consistency",
]
