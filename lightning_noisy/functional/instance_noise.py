"""Label noise that depends on the sample: on its pixels, or on what a model thinks of it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError

_EXPONENTS = -60.0, 60.0  # of c as a power of 2: where it is as good as 0 and as infinity
_BISECTIONS = 60


def standard_normal(uniform: Tensor) -> Tensor:
    r"""Normal draws from uniform ones: :math:`\Phi^{-1}(u)`, at least -8.3.

    Args:
        uniform: float64 draws in [0, 1), any shape, multiples of :math:`2^{-53}`.

    Returns:
        float64, the same shape.
    """
    normal: Tensor = torch.special.ndtri(uniform.clamp(min=2.0**-54))
    return normal


def truncated_normal(uniform: Tensor, mean: float, std: float) -> Tensor:
    r"""Draws of a normal distribution that is cut off outside [0, 1], by inversion.

    .. math:: q = \mu + \sigma\,\Phi^{-1}\big(\Phi(a) + u\,(\Phi(b) - \Phi(a))\big), \qquad
              a = \frac{-\mu}{\sigma}, \quad b = \frac{1 - \mu}{\sigma}

    Args:
        uniform: float64 draws in [0, 1), any shape.
        mean: Mean :math:`\mu` in [0, 1] of the normal distribution before it is cut off.
        std: Its standard deviation :math:`\sigma`, at least 0; 0 gives the mean.

    Returns:
        float64 in [0, 1], the same shape.
    """
    if std == 0:
        return torch.full_like(uniform, mean)
    low, high = torch.special.ndtr(torch.tensor([-mean / std, (1 - mean) / std], dtype=torch.float64)).tolist()
    return (mean + std * standard_normal(low + uniform * (high - low))).clamp(0, 1)


def instance_probabilities(scores: Tensor, label: int, flip_rates: Tensor) -> Tensor:
    r"""Probabilities of noisy labels for samples of one class.

    .. math:: P(\tilde y = j) = q\,\frac{\exp s_j}{\sum_{k \ne y} \exp s_k} \quad (j \ne y), \qquad
              P(\tilde y = y) = 1 - q

    Args:
        scores: Scores s of the noisy classes, float64 (B, K).
        label: The samples' class y.
        flip_rates: Probabilities q that a label flips, float64 (B,), in [0, 1].

    Returns:
        float64 (B, K), rows sum to 1.

    References:
        Xia et al., Part-dependent Label Noise: Towards Instance-dependent Label Noise, NeurIPS 2020, Algorithm 2.
    """
    others = scores.clone()
    others[:, label] = -torch.inf
    probabilities = flip_rates.unsqueeze(1) * others.softmax(dim=1)
    probabilities[:, label] = 1 - flip_rates
    return probabilities


def margin_keep_probability(margin: Tensor, kind: int) -> Tensor:
    r"""Polynomial margin diminishing noise: how often the likeliest class stays the label, before scaling.

    With the margin :math:`d = \eta_u - \eta_s` between the likeliest class u and the second one s, u becomes s with
    probability

    .. math:: f_\mathrm{I} = \tfrac12 - \tfrac12 d^2, \qquad f_\mathrm{II} = 1 - d^3, \qquad
              f_\mathrm{III} = 1 - \tfrac13 (d^3 + d^2 + d)

    Args:
        margin: d, float64 (N,), in [0, 1].
        kind: 1, 2 or 3.

    Returns:
        1 - f, float64 (N,), in [0, 1].

    References:
        Zhang et al., Learning with Feature-Dependent Label Noise: A Progressive Approach, ICLR 2021.
    """
    if kind == 1:
        return 0.5 + 0.5 * margin**2
    return margin**3 if kind == 2 else (margin**3 + margin**2 + margin) / 3


def margin_factor(keep: Tensor, first_wrong: Tensor, second_wrong: Tensor, rate: float) -> float:
    r"""The factor c by which keep probabilities are divided so that a share of labels is expected to be wrong.

    .. math:: \frac1N \sum_n p_n [u_n \ne y_n] + (1 - p_n) [s_n \ne y_n] = r, \qquad p_n = \min(1, k_n / c)

    Found by bisection between c = 0, where every label is :math:`u_n`, and c = infinity, where every label is
    :math:`s_n`.

    Args:
        keep: Keep probabilities k, float64 (N,), in [0, 1].
        first_wrong: Whether the likeliest class is wrong, bool (N,).
        second_wrong: Whether the second one is, bool (N,).
        rate: Wanted noise rate r.

    Returns:
        c > 0.

    Raises:
        NoisyLabelError: No factor gives this rate.
    """
    lost, won = first_wrong.double(), second_wrong.double()

    def expected(exponent: float) -> float:
        kept = (keep * 2.0**-exponent).clamp(max=1)
        return float((kept * lost + (1 - kept) * won).mean())

    low, high = _EXPONENTS
    lowest, highest = expected(low), expected(high)
    if not lowest <= rate <= highest:
        raise NoisyLabelError(
            f"Expected argument `rate` to lie between {lowest:.4f}, where each label is the likeliest class, and "
            f"{highest:.4f}, where each is the second one, but got {rate}: change it, or use the class probabilities "
            "of another model."
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < rate else (low, middle)
    return float(2.0**high)
