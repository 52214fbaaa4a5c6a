"""Kinds of label noise by the names that tables have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from lightning_noisy.data import AsymmetricNoise, FileNoise, LabelNoise, PairFlipNoise, SymmetricNoise

_AT_A_RATE: dict[str, Callable[[float], LabelNoise]] = {
    "symmetric": SymmetricNoise,
    "pair flips": PairFlipNoise,
    "asymmetric": partial(AsymmetricNoise, mapping="cifar10"),
}


def label_noise(name: str, labels: str | Path | None = None) -> LabelNoise:
    """``symmetric 0.4``, ``pair flips 0.4`` and ``asymmetric 0.4`` (CIFAR-10's mapping); any other is a name in a file.

    Args:
        name: As it stands in tables.
        labels: The file.
    """
    kind, _, rate = name.rpartition(" ")
    if kind in _AT_A_RATE:
        return _AT_A_RATE[kind](float(rate))
    assert labels is not None, f"{name}: no file with these labels"
    return FileNoise(str(labels), name)
