"""Losses corrected by a matrix of label noise, and an estimate of that matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.losses.probabilities import clipped_softmax


def forward_correction(logits: Tensor, target: Tensor, transition: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Cross entropy of the noisy label under the prediction that has been through the noise.

    .. math:: -\log \sum_i \tilde p_i T_{iy}, \qquad \tilde p = \operatorname{clip}(p, \epsilon, 1 - \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        transition: Matrix (K, K), row = clean class, column = noisy class, with no column of zeros.
        eps: Clip of the prediction at both ends, in (0, 0.5).

    Returns:
        Losses (B,), float32 or float64.
    """
    probability = clipped_softmax(logits, eps)
    columns = transition.to(probability).t()[target]
    return -(probability * columns).sum(dim=1).log()


def backward_correction(logits: Tensor, target: Tensor, inverse: Tensor, eps: float = 1e-7) -> Tensor:
    r"""Cross entropies of all labels, weighted so that their mean over the noise is that of the clean label.

    .. math:: -\sum_j (T^{-1})_{yj} \log \tilde p_j, \qquad \tilde p = \operatorname{clip}(p, \epsilon, 1 - \epsilon)

    Args:
        logits: Floating-point tensor (B, K).
        target: int64 labels (B,).
        inverse: Inverse (K, K) of the matrix of the noise.
        eps: Clip of the prediction at both ends, in (0, 0.5).

    Returns:
        Losses (B,), float32 or float64; some may be negative.
    """
    probability = clipped_softmax(logits, eps)
    return -(inverse.to(probability)[target] * probability.log()).sum(dim=1)


def estimate_transition(probabilities: Tensor, percentile: float | None = None) -> Tensor:
    r"""Estimate a matrix of label noise from the predictions of a network that was trained on the noisy labels.

    .. math:: T_{ij} = p_j(x^{(i)}), \qquad x^{(i)} = \arg\max_x p_i(x)

    The sample that is most certainly of class i, the class's anchor, is taken to be of that class, so that its
    prediction shows what the labels of the class become.

    Reference: G. Patrini et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach", CVPR
    2017.

    Args:
        probabilities: Predictions (N, K), rows that sum to 1, on the training set.
        percentile: In (0, 100]; the anchor is then the most certain sample below this percentile of the class's
            probabilities, which keeps outliers from being anchors. The official code has 97, and uses it on CIFAR-10
            but not on CIFAR-100. None takes the most certain sample of all.

    Returns:
        float64 matrix (K, K), row = clean class, column = noisy class. Of equally certain samples the first counts.

    Raises:
        NoisyLabelError: No matrix of at least one row, rows with another sum, a percentile outside its range, or a
            class of which no probability lies below it.
    """
    shape = tuple(probabilities.shape)
    check_argument(len(shape) == 2 and shape[0] > 0, "probabilities", "predictions (N, K)", f"shape {shape}")
    values = probabilities.double()
    sums = values.sum(dim=1)
    check_argument(
        bool(((sums - 1.0).abs() < 1e-3).all()), "probabilities", "rows that sum to 1", f"sums from {sums.min():.4g}"
    )
    candidates = values
    if percentile is not None:
        check_argument(0 < percentile <= 100, "percentile", "a float in (0, 100] or None", percentile)
        rank = math.ceil(percentile / 100 * (len(values) - 1))
        threshold = values.sort(dim=0).values[rank]
        candidates = torch.where(values < threshold, values, -math.inf)
        without = (values >= threshold).all(dim=0).nonzero().flatten().tolist()
        if without:
            raise NoisyLabelError(
                f"No probability of class {without[0]} lies below its percentile {percentile:g}, so it has no anchor: "
                "raise `percentile`, or set None."
            )
    return values[candidates.argmax(dim=0)]
