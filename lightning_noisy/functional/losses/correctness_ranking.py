"""Confidence that ranks samples as their being right has done so far."""

from __future__ import annotations

from torch import Tensor


def correctness_ranking(confidence: Tensor, correctness: Tensor) -> Tensor:
    r"""Penalty where neighbours in a batch differ in confidence by less than in correctness, or the other way round.

    .. math:: \max\big(0, -t_i\, (\kappa_i - \kappa_j - (n_i - n_j))\big), \qquad t_i = \operatorname{sign}(n_i - n_j),
              \qquad j = i + 1

    where the last sample's neighbour is the first. It is 0 where both have been right equally often.

    Args:
        confidence: :math:`\kappa` (B,), such as the largest probability of each sample.
        correctness: n (B,), the share of visits in which the sample was predicted as labelled.

    Returns:
        Losses (B,); gradients reach both samples' confidence.

    References:
        Moon et al., Confidence-Aware Learning for Deep Neural Networks (CRL), ICML 2020. Its code writes the margin
        :math:`n_i - n_j` as :math:`|n_i - n_j| / (t_i + 10^{-7})`.
    """
    ahead = correctness - correctness.roll(-1)
    return (-ahead.sign() * (confidence - confidence.roll(-1) - ahead)).relu()
