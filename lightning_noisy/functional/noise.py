r"""Class-conditional label noise as matrices, and what can be measured of noise once clean labels are known.

A transition matrix is :math:`T_{ij} = P(\tilde y = j \mid y = i)`: row = clean class, column = noisy class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_noisy.checks import check_labels
from lightning_noisy.errors import NoisyLabelError, check_argument

MOST_CLASSES = 2**24
"""A row for each of more classes cannot be meant: a label is out of place."""


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_rate(rate: float) -> None:
    """Refuse a noise rate outside [0, 1].

    Raises:
        NoisyLabelError: ``rate`` is no number in [0, 1].
    """
    number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    check_argument(number and 0 <= rate <= 1, "rate", "a float in [0, 1]", rate)


def check_num_classes(num_classes: int) -> None:
    """Refuse a number of classes below two, or so large that a row of each cannot be meant.

    Raises:
        NoisyLabelError: ``num_classes`` is no integer from 2 to :data:`MOST_CLASSES`.
    """
    check_argument(
        _is_integer(num_classes) and num_classes >= 2, "num_classes", "an integer of at least 2", num_classes
    )
    check_argument(num_classes <= MOST_CLASSES, "num_classes", f"at most {MOST_CLASSES}", num_classes)


def check_mapping(mapping: Mapping[int, int], num_classes: int | None = None) -> None:
    """Refuse a mapping from class to class.

    Args:
        mapping: Clean class -> the class it is taken for.
        num_classes: Number of classes K, ``None`` where it is not known yet.

    Raises:
        NoisyLabelError: No entry, a class that is no integer in [0, K), or a class mapped to itself.
    """
    classes = [*mapping, *mapping.values()]
    inside = all(_is_integer(k) and k >= 0 and (num_classes is None or k < num_classes) for k in classes)
    valid = len(mapping) > 0 and inside and all(source != wrong for source, wrong in mapping.items())
    bound = "K" if num_classes is None else num_classes
    check_argument(valid, "mapping", f"a non-empty dict from classes in [0, {bound}) to other classes in it", mapping)


def as_targets(labels: object, num_classes: int | None, name: str = "targets") -> Tensor:
    """Labels that are classes; those of a NumPy array as a tensor.

    Args:
        labels: What should be int64 (N,) with values in [0, ``num_classes``), a tensor or a NumPy array.
        num_classes: Number of classes K; None sets no upper bound.
        name: The argument's name in the message.

    Returns:
        The tensor itself, or one that shares its memory with the array.

    Raises:
        NoisyLabelError: Another type, number of dimensions or dtype, or a value outside the range.
    """
    kind = getattr(getattr(labels, "dtype", None), "kind", "")
    tensor = torch.as_tensor(labels) if kind and kind in "iuf" else labels
    if not isinstance(tensor, Tensor) or tensor.ndim != 1 or tensor.dtype != torch.int64:
        described = f"{tensor.dtype} of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else None
        came = described or f"a {type(labels).__name__}"
        raise NoisyLabelError(f"Expected argument `{name}` to be an int64 tensor of shape (N,), but got {came}.")
    check_labels(tensor, num_classes, f"argument `{name}`")
    return tensor


def symmetric_matrix(num_classes: int, rate: float, include_true_class: bool = False) -> Tensor:
    r"""Symmetric (uniform) noise.

    .. math:: T = (1 - r) I + \frac{r}{K - 1} (\mathbf{1}\mathbf{1}^\top - I)
              \qquad\text{or, with the true class,}\qquad T = (1 - r) I + \frac{r}{K} \mathbf{1}\mathbf{1}^\top

    The true fraction of wrong labels is :math:`r` in the first reading and :math:`r (K - 1) / K` in the second; the
    papers use both, see :class:`lightning_noisy.data.noise.SymmetricNoise`.

    Args:
        num_classes: Number of classes K, at least 2.
        rate: Noise rate r in [0, 1].
        include_true_class: Whether a redrawn label may be the true one.

    Returns:
        float64 matrix (K, K); rows sum to 1 up to rounding.

    Raises:
        NoisyLabelError: ``num_classes`` below 2 or ``rate`` outside [0, 1].

    References:
        van Rooyen et al., Learning with Symmetric Label Noise: The Importance of Being Unhinged, NeurIPS 2015.
    """
    check_num_classes(num_classes)
    check_rate(rate)
    identity = torch.eye(num_classes, dtype=torch.float64)
    if include_true_class:
        return (1 - rate) * identity + rate / num_classes
    return (1 - rate) * identity + rate / (num_classes - 1) * (1 - identity)


def asymmetric_matrix(num_classes: int, rate: float, mapping: Mapping[int, int], sequential: bool = False) -> Tensor:
    r"""Asymmetric (class-dependent) noise: some classes are taken for another one.

    .. math:: T_{ii} = 1 - r, \quad T_{i\,m(i)} = r \quad\text{for } i \in \operatorname{dom} m,
              \qquad T_{ii} = 1 \quad\text{otherwise}

    All classes flip simultaneously: a label flips at most once. Sequentially, the classes flip one after another in the
    order of the mapping, and T is the product of the matrices of the single flips.

    Args:
        num_classes: Number of classes K, at least 2.
        rate: Probability r in [0, 1] that a label of a mapped class flips.
        mapping: Clean class -> the class it is taken for, at least one entry, all in [0, K), none to itself.
        sequential: Whether the classes flip one after another.

    Returns:
        float64 matrix (K, K); rows sum to 1 up to rounding.

    Raises:
        NoisyLabelError: One of the arguments is outside its range.

    References:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach, CVPR 2017.
    """
    check_num_classes(num_classes)
    check_rate(rate)
    check_mapping(mapping, num_classes)
    matrix = torch.eye(num_classes, dtype=torch.float64)
    for source, wrong in mapping.items():
        if sequential:
            matrix[:, wrong] += rate * matrix[:, source]
            matrix[:, source] *= 1 - rate
        else:
            matrix[source, source] = 1 - rate
            matrix[source, wrong] = rate
    return matrix


def pair_flip_matrix(num_classes: int, rate: float) -> Tensor:
    r"""Pair flipping: each class is taken for the next one.

    .. math:: T_{ii} = 1 - r, \qquad T_{i,\,(i + 1) \bmod K} = r

    Args:
        num_classes: Number of classes K, at least 2.
        rate: Noise rate r in [0, 1].

    Returns:
        float64 matrix (K, K); rows sum to 1 up to rounding.

    Raises:
        NoisyLabelError: ``num_classes`` below 2 or ``rate`` outside [0, 1].

    References:
        Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, NeurIPS 2018.
    """
    check_num_classes(num_classes)
    check_rate(rate)
    identity = torch.eye(num_classes, dtype=torch.float64)
    return (1 - rate) * identity + rate * identity.roll(1, dims=1)


def flip_counts(targets: Tensor, matrix: Tensor) -> Tensor:
    r"""How many labels of each class change where the number of wrong labels is fixed.

    .. math:: q_i = n_i (1 - T_{ii}), \qquad m_i \in \{\lfloor q_i \rfloor, \lceil q_i \rceil\}, \qquad
              \sum_i m_i = \operatorname{round} \sum_i q_i

    Classes with the largest remainders :math:`q_i - \lfloor q_i \rfloor` are rounded up, lower ones first on ties.

    Args:
        targets: int64 (N,), values in [0, K).
        matrix: Transition matrix (K, K).

    Returns:
        int64 (K,).
    """
    sizes = targets.bincount(minlength=len(matrix))
    quotas = sizes * (1 - matrix.double().diagonal()).clamp(0, 1)
    counts = quotas.floor()
    missing = round(math.fsum(quotas.tolist())) - int(counts.sum())
    counts[(quotas - counts).argsort(descending=True, stable=True)[:missing]] += 1
    return counts.long()
