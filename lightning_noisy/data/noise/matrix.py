"""Class-conditional noise: what a label becomes depends on its class alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.data.array_file import ArrayFile
from lightning_noisy.data.noise.base import NOISE_STREAM, Images, LabelNoise
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.noise import (
    as_targets,
    check_num_classes,
    check_rate,
    flip_counts,
    pair_flip_matrix,
    symmetric_matrix,
)
from lightning_noisy.functional.random import hash_uniform, sample_categorical
from lightning_noisy.functional.selection import place_in_class

_CHUNK = 2**21  # weights held at once: 16 MiB of float64
_LONGEST = 120  # characters of a value in a message
_OTHERS = 1  # last key of the draws that say what a chosen label becomes


class TransitionMatrixNoise(LabelNoise):
    r"""Class-conditional noise, from a matrix with a row for each clean class.

    .. math:: \tilde y_n \sim T_{y_n \cdot}, \qquad T_{ij} = P(\tilde y = j \mid y = i)

    Each label is drawn on its own: the draw of sample n depends on the seed, n and its clean label alone. The number of
    wrong labels is therefore random: with flip probability r its standard deviation is :math:`\sqrt{N r (1 - r)}` (110
    of 20,000 at N = 50,000, r = 0.4).

    With ``exact`` the number is fixed instead: :math:`\sum_i n_i (1 - T_{ii})`, rounded, for classes of
    :math:`n_i` samples, and each class has its share of it, rounded by largest remainders
    (:func:`~lightning_noisy.functional.noise.flip_counts`). Which samples of a class these are is random, and so is
    what each becomes: :math:`j \ne i` with probability :math:`T_{ij} / (1 - T_{ii})`.
    """

    exact: bool = False
    """Whether the number of wrong labels is fixed."""

    @abstractmethod
    def transition_matrix(self, num_classes: int) -> Tensor:
        """Non-negative floating-point matrix (K, K) whose rows, one per clean class, sum to 1."""

    def corrupt(self, targets: Tensor, num_classes: int, seed: int, images: Images | None = None) -> Tensor:
        """Noisy labels for clean ones, see :meth:`LabelNoise.corrupt`."""
        check_num_classes(num_classes)
        targets = as_targets(targets, num_classes)
        matrix = self.transition_matrix(num_classes).to(targets.device)
        _check_matrix(matrix, num_classes, type(self).__name__)
        return draw_labels(targets, matrix, (seed, NOISE_STREAM), self.exact)


def draw_labels(targets: Tensor, matrix: Tensor, keys: tuple[int, ...], exact: bool) -> Tensor:
    """Labels drawn from the rows of a matrix.

    Args:
        targets: int64 (N,), values in [0, K).
        matrix: Transition matrix (K, K).
        keys: What the draws are a function of, beside the position.
        exact: Whether as many of each class change as :func:`~lightning_noisy.functional.noise.flip_counts` says.

    Returns:
        New int64 tensor (N,).
    """
    position = torch.arange(len(targets), device=targets.device)
    uniform = hash_uniform(*keys, position)
    if not exact:
        return _sample_rows(matrix, targets, uniform)
    chosen = _first_of_each_class(targets, uniform, flip_counts(targets, matrix))
    others = matrix.clone().fill_diagonal_(0)
    noisy = targets.clone()
    noisy[chosen] = _sample_rows(others, targets[chosen], hash_uniform(*keys, chosen, _OTHERS))
    return noisy


def _sample_rows(matrix: Tensor, targets: Tensor, uniform: Tensor) -> Tensor:
    noisy = torch.empty_like(targets)
    rows = max(1, _CHUNK // len(matrix))  # matrix[targets] at once would be 8 GB for ImageNet
    for start in range(0, len(targets), rows):
        chunk = slice(start, start + rows)
        noisy[chunk] = sample_categorical(matrix[targets[chunk]], uniform[chunk])
    return noisy


def _first_of_each_class(targets: Tensor, uniform: Tensor, counts: Tensor) -> Tensor:
    """Positions of the ``counts[i]`` samples of class i with the smallest draws."""
    order = uniform.argsort(stable=True)
    labels = targets[order]
    return order[place_in_class(labels) < counts[labels]]


def _check_matrix(matrix: Tensor, num_classes: int, name: str) -> None:
    square = matrix.shape == (num_classes, num_classes)
    if not square or not bool((matrix >= 0).all()) or not bool(((matrix.sum(dim=1) - 1).abs() < 1e-4).all()):
        came = "a negative entry, a NaN or a row with another sum" if square else f"shape {tuple(matrix.shape)}"
        raise NoisyLabelError(
            f"Expected `{name}.transition_matrix({num_classes})` to be non-negative of shape "
            f"({num_classes}, {num_classes}) with rows that sum to 1, but got {came}."
        )


class SymmetricNoise(TransitionMatrixNoise):
    r"""Symmetric (uniform) noise: with probability ``rate`` the label is redrawn uniformly.

    The literature has two conventions, and its numbers are not comparable across them:

    - ``include_true_class=False``: redrawn from the K - 1 other classes, the true fraction of wrong labels is
      ``rate``. In the published code of APL, ANL, AGCE / AUL / AEL, sparse regularization, Co-teaching, CDR and SED.
    - ``include_true_class=True``: redrawn from all K classes, the true fraction of wrong labels is
      ``rate * (K - 1) / K`` (0.36 for 0.4 and ten classes). In the published code of SELC, NAL, ELR, GJS, Joint
      Optimization, DISC and the DivideMix family, and in the label files of DAL. The papers of DCM and NAL speak of
      the other classes.

    Co-teaching, CDR and SED draw each label on its own, the default here. With ``exact`` a fixed number of labels is
    wrong, the same share of each class and each to a random other class, as in the code of APL and sparse
    regularization. ANL fixes the number for each pair of classes, rounded down (79.92 % of CIFAR-10 for 80 %). SELC,
    NAL, ELR, GJS and Joint Optimization fix the number of redrawn samples of the whole set, so that the number of wrong
    ones still varies (by 42 of 18,000 for a rate of 0.4 on CIFAR-10, one standard deviation).

    Args:
        rate: Noise rate in [0, 1].
        include_true_class: Whether a redrawn label may be the true one.
        exact: Whether the number of wrong labels is fixed: ``rate * N``, or ``rate * N * (K - 1) / K`` with
            ``include_true_class``, rounded; see :class:`TransitionMatrixNoise`.

    Raises:
        NoisyLabelError: ``rate`` outside [0, 1].

    References:
        van Rooyen et al., Learning with Symmetric Label Noise: The Importance of Being Unhinged, NeurIPS 2015.
    """

    def __init__(self, rate: float, include_true_class: bool = False, exact: bool = False) -> None:
        check_rate(rate)
        self.rate: float = float(rate)
        self.include_true_class = include_true_class
        self.exact = exact

    def transition_matrix(self, num_classes: int) -> Tensor:
        """See :func:`lightning_noisy.functional.noise.symmetric_matrix`."""
        return symmetric_matrix(num_classes, self.rate, self.include_true_class)


class PairFlipNoise(TransitionMatrixNoise):
    """Pair flipping: with probability ``rate`` class i becomes class i + 1, the last one class 0.

    The fraction of wrong labels is ``rate``; from 0.5 on the true class is no longer the most frequent label of its
    samples. The noise of Co-teaching; the published code of SED and Jo-SRC calls it "asymmetric".

    Args:
        rate: Noise rate in [0, 1].
        exact: Whether the number of wrong labels is fixed, see :class:`TransitionMatrixNoise`.

    Raises:
        NoisyLabelError: ``rate`` outside [0, 1].

    References:
        Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, NeurIPS 2018.
    """

    def __init__(self, rate: float, exact: bool = False) -> None:
        check_rate(rate)
        self.rate: float = float(rate)
        self.exact = exact

    def transition_matrix(self, num_classes: int) -> Tensor:
        """See :func:`lightning_noisy.functional.noise.pair_flip_matrix`."""
        return pair_flip_matrix(num_classes, self.rate)


class TransitionNoise(TransitionMatrixNoise):
    """Class-conditional noise from a matrix of your own: measured on other data, estimated, or made up.

    Args:
        matrix: K rows, one per clean class, of K probabilities, one per noisy class; or the path of a ``.npy`` file
            with such an array. Rows sum to 1 within 1e-4 and are normalized.
        exact: Whether the number of wrong labels is fixed, see :class:`TransitionMatrixNoise`.

    Raises:
        NoisyLabelError: ``matrix`` is no square of at least two rows of non-negative numbers that sum to 1; at
            :meth:`corrupt`, a file that is missing, cannot be read or holds anything else, or another K.

    References:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach, CVPR 2017.
    """

    def __init__(self, matrix: Sequence[Sequence[float]] | str | Path, exact: bool = False) -> None:
        if isinstance(matrix, (str, Path)):
            check_argument(Path(matrix).suffix.lower() == ".npy", "matrix", "rows or a .npy file", str(matrix))
            self.matrix: list[list[float]] | str = str(matrix)
        else:
            self.matrix = _rows(matrix).tolist()
        self.exact = exact

    def transition_matrix(self, num_classes: int) -> Tensor:
        """The matrix, float64 (K, K), rows normalized."""
        matrix = self._read() if isinstance(self.matrix, str) else torch.tensor(self.matrix, dtype=torch.float64)
        if len(matrix) != num_classes:
            raise NoisyLabelError(
                f"Expected argument `matrix` to have a row for each of the {num_classes} classes, but got "
                f"{len(matrix)}: give the matrix of these data."
            )
        return matrix / matrix.sum(dim=1, keepdim=True)

    def _read(self) -> Tensor:
        assert isinstance(self.matrix, str)
        return _rows(ArrayFile(self.matrix, "matrix").pick(None, "a transition matrix"))


def _rows(matrix: object) -> Tensor:
    """A checked matrix (K, K), float64."""
    wanted = "K rows of K non-negative numbers that sum to 1, K at least 2"
    try:
        rows = torch.from_numpy(np.array(matrix, dtype=np.float64))
    except (TypeError, ValueError):
        came = f"dtype {matrix.dtype}" if isinstance(matrix, np.ndarray) else repr(matrix)[:_LONGEST]
        raise NoisyLabelError(f"Expected argument `matrix` to be {wanted}, but got {came}.") from None
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1] or len(rows) < 2:
        raise NoisyLabelError(f"Expected argument `matrix` to be {wanted}, but got shape {tuple(rows.shape)}.")
    wrong = ((rows < 0).any(dim=1) | ~((rows.sum(dim=1) - 1).abs() < 1e-4)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        came = f"row {row} with sum {float(rows[row].sum()):g} and minimum {float(rows[row].min()):g}"
        raise NoisyLabelError(f"Expected argument `matrix` to be {wanted}, but got {came}.")
    return rows
