"""The prior of joint optimization."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divergence_from_uniform(mean_probability: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of the mean prediction from the uniform distribution, the prior of the classes.

    .. math:: \sum_k \frac{1}{K} \log \frac{1 / K}{\bar p_k} = -\ln K - \frac{1}{K} \sum_k \log \bar p_k

    Args:
        mean_probability: Mean prediction (K,), float32 or float64.

    Returns:
        Scalar, at least 0 up to rounding. A class that underflows counts with the dtype's smallest number, without
        gradient.
    """
    floored = mean_probability.clamp(min=torch.finfo(mean_probability.dtype).tiny)
    return -math.log(len(mean_probability)) - floored.log().mean()
