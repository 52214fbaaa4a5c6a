"""Losses of logits and targets, one value per sample: no reduction, no state.

Every function takes logits (B, K) of any floating dtype, computes in float32 (float64 for float64 logits) and returns
losses (B,) of that dtype. Where a paper's code clamps a probability, so do these: the gradient through a clamped
probability is zero. Finite logits of any size give finite gradients, and finite values but for cross entropy, which
overflows where logits differ by more than the dtype holds.
"""

from __future__ import annotations

from lightning_noisy.functional.losses.active_negative import (
    ACTIVE_NEGATIVE,
    absolute_sum,
    active_negative_loss,
    normalized_negative_cross_entropy,
)
from lightning_noisy.functional.losses.bootstrap import bootstrap_cross_entropy
from lightning_noisy.functional.losses.correction import backward_correction, estimate_transition, forward_correction
from lightning_noisy.functional.losses.cross_entropy import cross_entropy
from lightning_noisy.functional.losses.early_learning import early_learning_regularization
from lightning_noisy.functional.losses.generalized import (
    dynamics_aware_loss,
    generalized_cross_entropy,
    soft_bootstrapping,
)
from lightning_noisy.functional.losses.noise_attention import noise_attention
from lightning_noisy.functional.losses.normalized import normalized_cross_entropy
from lightning_noisy.functional.losses.probabilities import clipped_softmax, one_hot
from lightning_noisy.functional.losses.symmetric import (
    mean_absolute_error,
    reverse_cross_entropy,
    symmetric_cross_entropy,
)

__all__ = [
    "ACTIVE_NEGATIVE",
    "absolute_sum",
    "active_negative_loss",
    "backward_correction",
    "bootstrap_cross_entropy",
    "clipped_softmax",
    "cross_entropy",
    "dynamics_aware_loss",
    "early_learning_regularization",
    "estimate_transition",
    "forward_correction",
    "generalized_cross_entropy",
    "mean_absolute_error",
    "noise_attention",
    "normalized_cross_entropy",
    "normalized_negative_cross_entropy",
    "one_hot",
    "reverse_cross_entropy",
    "soft_bootstrapping",
    "symmetric_cross_entropy",
]
