"""What labels have become: counts, rates and hashes."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.functional.noise import as_targets, check_num_classes


def _check_pair(clean: Tensor, noisy: Tensor) -> None:
    if clean.shape != noisy.shape or clean.ndim != 1 or clean.numel() == 0:
        raise NoisyLabelError(
            "Expected arguments `clean` and `noisy` to be non-empty tensors of one shape (N,), "
            f"but got {tuple(clean.shape)} and {tuple(noisy.shape)}."
        )


def transition_counts(clean: Tensor, noisy: Tensor, num_classes: int, num_clean_classes: int | None = None) -> Tensor:
    r"""How often each clean class got each noisy label.

    .. math:: C_{ij} = \sum_n [y_n = i]\,[\tilde y_n = j]

    Args:
        clean: int64 (N,), values in [0, C).
        noisy: int64 (N,), values in [0, K).
        num_classes: Number of classes K, at least 2.
        num_clean_classes: Number C of clean classes, at least K; more where some images belong to none of the K. None
            stands for K.

    Returns:
        int64 counts (C, K), row = clean class, column = noisy class.

    Raises:
        NoisyLabelError: Shapes differ, no sample, another dtype, or a label outside its range.
    """
    check_num_classes(num_classes)
    _check_pair(clean, noisy)
    rows = num_classes if num_clean_classes is None else num_clean_classes
    clean = as_targets(clean, rows, "clean")
    noisy = as_targets(noisy, num_classes, "noisy")
    cells = torch.bincount(clean * num_classes + noisy, minlength=rows * num_classes)
    return cells.reshape(rows, num_classes)


def noise_rate(clean: Tensor, noisy: Tensor) -> float:
    r"""Fraction of wrong labels.

    .. math:: \frac{1}{N} \sum_n [y_n \ne \tilde y_n]

    Args:
        clean: Integer labels (N,).
        noisy: Integer labels (N,).

    Returns:
        A float in [0, 1].

    Raises:
        NoisyLabelError: Shapes differ, or there is no sample.
    """
    _check_pair(clean, noisy)
    return int((clean != noisy).sum()) / clean.numel()


def labels_hash(labels: Tensor) -> str:
    """Fingerprint of labels: SHA-256 of their values as little-endian int64, the same on every machine.

    Args:
        labels: Integer tensor (N,) on any device; equal values hash alike in every integer type.

    Returns:
        64 hexadecimal digits.

    Raises:
        NoisyLabelError: ``labels`` are no integers.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise NoisyLabelError(f"Expected argument `labels` to be an integer tensor, but got {labels.dtype}.")
    return hashlib.sha256(labels.detach().cpu().long().numpy().astype("<i8").tobytes()).hexdigest()
