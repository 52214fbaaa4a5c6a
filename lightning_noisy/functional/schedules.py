"""Values that change with training time."""

from __future__ import annotations

import math


def linear(start: float, end: float, step: float, total_steps: float) -> float:
    r"""Linear change that reaches its end only after the last step.

    .. math:: v(i) = v_s + (v_e - v_s)\, i / E, \qquad i = 0, \dots, E - 1
    """
    return start + (end - start) * step / total_steps


def bootstrapping_weight(q_start: float, q_end: float, lam_end: float, epoch: float, total_epochs: float) -> float:
    r"""Weight of the bootstrapping term in dynamics-aware loss.

    .. math:: \lambda(i) = \lambda_e \max\!\Big(0, \frac{i - t_0}{E - t_0}\Big), \qquad
              t_0 = \frac{(1 - q_s) E}{q_e - q_s}

    :math:`t_0` is the moment at which q reaches 1. With :math:`q_e \le 1` it is never passed and the weight is 0 (the
    published expression divides by zero there).
    """
    if q_end <= 1.0:
        return 0.0
    if q_end == q_start:
        return lam_end
    reaches_one = (1.0 - q_start) * total_epochs / (q_end - q_start)
    return lam_end * max(0.0, (epoch - reaches_one) / (total_epochs - reaches_one))


def linear_rampup(position: float, length: float) -> float:
    r"""A weight that grows from 0 to 1: :math:`\min(1, \max(0, t / T))`.

    Args:
        position: t, such as epochs since the warm-up, fractions too.
        length: T, at least 0; with 0 the weight is 1.
    """
    return 1.0 if length == 0 else min(1.0, max(0.0, position / length))


def sigmoid_rampup(position: float, length: float) -> float:
    r"""A weight that grows from 0.0067 to 1: :math:`\exp(-5 (1 - \min(1, \max(0, t / T)))^2)`.

    Args:
        position: t, such as the number of steps.
        length: T, at least 0; with 0 the weight is 1.
    """
    return math.exp(-5.0 * (1.0 - linear_rampup(position, length)) ** 2)
