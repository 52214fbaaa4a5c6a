"""Ratios as people write them."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache


@lru_cache
def as_written(ratio: float) -> Fraction:
    """The number that a binary float stands for: the nearest fraction with a denominator of at most ten million.

    Binary floating point puts some products just below the integer they mean (0.29 * 100 = 28.999...). Ten million
    holds whatever seven digits can write, and thirds; rounding cannot take one such fraction for another, as it could
    with nine digits.
    """
    return Fraction(float(ratio)).limit_denominator(10**7)
