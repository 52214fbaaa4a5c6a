"""Draws that are a function of their keys: no stream, so no dependence on order, rank, worker or resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as ``value``."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


_CPU = torch.device("cpu")
_WORD = 2**64 - 1
_INCREMENT = _signed(0x9E3779B97F4A7C15)
_MULTIPLIERS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
Bits = TypeVar("Bits", Tensor, NDArray[np.int64])


def _shift_right(bits: Bits, count: int) -> Bits:
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Bits) -> Bits:
    """SplitMix64's output function, in place: a bijection of 64-bit words that flips half the bits on average."""
    bits ^= _shift_right(bits, 30)
    bits *= _MULTIPLIERS[0]
    bits ^= _shift_right(bits, 27)
    bits *= _MULTIPLIERS[1]
    bits ^= _shift_right(bits, 31)
    return bits


def _word(key: Tensor | int) -> Tensor | int:
    """A key as int64: next to the 0-dim state, a narrower tensor would set the type of the result."""
    if not isinstance(key, Tensor):
        return _signed(key)
    if key.is_floating_point():
        raise NoisyLabelError(
            f"Expected the keys of a draw to be integers, but got {key.dtype}: cast the tensor first."
        )
    return key.long()


def hash_bits(*keys: Tensor | int) -> Tensor:
    r"""Hash integer keys to 64 random bits.

    .. math:: h_0 = 0, \qquad h_{j+1} = \operatorname{mix}\big((h_j \oplus k_j) + \gamma\big)

    with SplitMix64's finalizer and increment :math:`\gamma` (Steele et al., 2014). The result is the same on every
    device and in every version of torch: int64 arithmetic only.

    Args:
        *keys: Python integers or integer tensors that broadcast together, e.g. ``seed, epoch, index``. Equal values
            hash alike in every integer type.

    Returns:
        int64 tensor of the keys' common shape.

    Raises:
        NoisyLabelError: A key is a floating-point tensor.
    """
    words = [_word(key) for key in keys]
    device = next((word.device for word in words if isinstance(word, Tensor) and word.device != _CPU), _CPU)
    if device != _CPU:
        return _hash(torch.zeros((), dtype=torch.int64, device=device), words)
    with np.errstate(over="ignore"):  # numpy's operations on few numbers cost a fifth of torch's
        arrays = [word.numpy() if isinstance(word, Tensor) else word for word in words]
        return torch.from_numpy(np.asarray(_hash(np.zeros((), np.int64), arrays)))


def _hash(bits: Bits, words: Sequence[Bits | int]) -> Bits:
    for word in words:
        bits = _mix((bits ^ word) + _INCREMENT)
    return bits


def hash_uniform(*keys: Tensor | int) -> Tensor:
    """Uniform draws in [0, 1) as a function of integer keys, see :func:`hash_bits`.

    Returns:
        float64 tensor of the keys' common shape: multiples of 2**-53.
    """
    return _shift_right(hash_bits(*keys), 11).double() * 2.0**-53


def hash_normals(count: int, *keys: Tensor | int) -> Tensor:
    r"""Standard normal draws as a function of integer keys, two from each hash (Box and Muller, 1958).

    .. math::
        (z_j, z_{j + \lceil n/2 \rceil}) = \sqrt{-2 \ln u_j} \, (\cos 2 \pi v_j, \sin 2 \pi v_j)

    for :math:`n` draws, with :math:`u_j \in (0, 1]` and :math:`v_j \in [0, 1)` multiples of 2**-24. So none is
    beyond 5.8 standard deviations.

    Args:
        count: How many for each value of the keys.
        *keys: Python integers or integer tensors that broadcast together to shape (B,).

    Returns:
        float32 tensor (B, count).
    """
    rows = hash_bits(*keys).unsqueeze(1)
    bits = hash_bits(rows, torch.arange(-(-count // 2), device=rows.device))
    radius = _shift_right(bits, 40).add_(1).float().mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = ((bits >> 8) & (2**24 - 1)).float().mul_(2 * math.pi * 2.0**-24)
    return torch.cat([radius * angle.cos(), angle.sin_().mul_(radius)], dim=1)[:, :count]


def hash_seed(*keys: int) -> int:
    """A seed in [0, 2**63) for a random generator: the upper 63 bits of :func:`hash_bits`, in Python's integers."""
    bits = 0
    for key in keys:
        bits = ((bits ^ key) + _INCREMENT) & _WORD
        bits = ((bits ^ bits >> 30) * _MULTIPLIERS[0]) & _WORD
        bits = ((bits ^ bits >> 27) * _MULTIPLIERS[1]) & _WORD
        bits ^= bits >> 31
    return bits >> 1


def sample_categorical(weights: Tensor, uniform: Tensor) -> Tensor:
    r"""Draw one class per row by inverting the cumulative sum.

    .. math:: \hat y_i = \min\{k : \textstyle\sum_{j \le k} w_{ij} > u_i \sum_j w_{ij}\}

    A class of weight zero is never drawn, a trailing one included: the last class with a positive weight takes what
    rounding leaves over.

    Args:
        weights: Non-negative weights (B, K), not necessarily normalized, each row with a positive sum.
        uniform: Draws in [0, 1), shape (B,).

    Returns:
        int64 class indices (B,).
    """
    cumulative = weights.double().cumsum(dim=1).contiguous()
    total = cumulative[:, -1:].contiguous()
    drawn = torch.searchsorted(cumulative, uniform.double().unsqueeze(1) * total, right=True).squeeze(1)
    last = torch.searchsorted(cumulative, total).squeeze(1)
    return torch.minimum(drawn, last)
