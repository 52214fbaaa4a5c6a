"""Losses corrected by a known or estimated matrix of label noise."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.losses import backward_correction, forward_correction
from lightning_noisy.losses._class_constant import ClassConstant
from lightning_noisy.losses.base import NoisyLabelLoss

_UNREADABLE = (TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile)
_WANTED = "a square matrix of numbers >= 0, at least (2, 2), with rows that sum to 1"


class ForwardCorrection(NoisyLabelLoss):
    r"""Forward correction: the prediction goes through the noise before it meets the noisy label.

    .. math::
        \mathcal{L} = -\log \sum_i \tilde p_i T_{iy}, \qquad T_{ij} = P(\tilde y = j \mid y = i), \quad
        \tilde p = \operatorname{clip}(\operatorname{softmax}(z), \epsilon, 1 - \epsilon)

    Its minimizer on noisy labels is that of cross entropy on clean ones.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). The gradient is zero where the prediction is clipped.

    The matrix may be known (:mod:`lightning_noisy.functional.noise` makes those of the usual noise models) or come from
    :func:`lightning_noisy.losses.estimate_transition` and the predictions of a first network, as in the
    paper.

    Reference: G. Patrini et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach", CVPR
    2017. The official code (Keras) clips as above with ``eps`` 1e-7.

    Args:
        transition: The matrix T (K, K), row = clean class, column = noisy class, rows that sum to 1 and no column of
            zeros; or the path of a .npy file, or of a .npz file that holds it alone.
        eps: Clip of the prediction at both ends, in (0, 0.5).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is none of these, or ``forward`` gets another K or another target.

    Example:
        >>> import torch
        >>> loss = ForwardCorrection([[0.5, 0.5], [0.0, 1.0]])
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))  # -log(0.25 + 0.5)
        tensor(0.2877)
    """

    def __init__(
        self, transition: Tensor | list[list[float]] | str, eps: float = 1e-7, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 < eps < 0.5, "eps", "a float in (0, 0.5)", eps)
        matrix = _read_transition(transition)
        never = (matrix.sum(dim=0) == 0).nonzero().flatten().tolist()
        check_argument(not never, "transition", "a matrix without a column of zeros", f"zeros in columns {never}")
        self.eps = eps
        self._transition = ClassConstant(matrix, "transition")

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return forward_correction(logits, target, self._transition.like(logits), self.eps)


class BackwardCorrection(NoisyLabelLoss):
    r"""Backward correction: cross entropies of all labels, combined so that the noise cancels in the mean.

    .. math::
        \mathcal{L} = -\sum_j (T^{-1})_{yj} \log \tilde p_j, \qquad T_{ij} = P(\tilde y = j \mid y = i), \quad
        \tilde p = \operatorname{clip}(\operatorname{softmax}(z), \epsilon, 1 - \epsilon)

    Its mean over the noise is the cross entropy of the clean label. Single values may be negative, and grow with the
    inverse: near-singular matrices (strong noise) make it unstable, where :class:`ForwardCorrection` is not.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits). The gradient is zero where the prediction is clipped.

    Reference: G. Patrini et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach", CVPR
    2017. The official code (Keras) clips as above with ``eps`` 1e-7.

    Args:
        transition: The matrix T (K, K), row = clean class, column = noisy class, rows that sum to 1, invertible; or the
            path of a .npy file, or of a .npz file that holds it alone.
        eps: Clip of the prediction at both ends, in (0, 0.5).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is none of these, or ``forward`` gets another K or another target.

    Example:
        >>> import torch
        >>> loss = BackwardCorrection([[0.5, 0.5], [0.0, 1.0]])
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # 2 log 2 - log 2
        tensor(0.6931)
    """

    def __init__(
        self, transition: Tensor | list[list[float]] | str, eps: float = 1e-7, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check_argument(0.0 < eps < 0.5, "eps", "a float in (0, 0.5)", eps)
        matrix = _read_transition(transition)
        rank = int(torch.linalg.matrix_rank(matrix))
        if rank < len(matrix):
            raise NoisyLabelError(
                f"Expected argument `transition` to be invertible, but got a matrix of rank {rank} for {len(matrix)} "
                "classes: use ForwardCorrection, which needs no inverse."
            )
        self.eps = eps
        self._inverse = ClassConstant(torch.linalg.inv(matrix), "transition")

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return backward_correction(logits, target, self._inverse.like(logits), self.eps)


def _read_transition(source: Tensor | list[list[float]] | str) -> Tensor:
    """A matrix of label noise.

    Args:
        source: A matrix (K, K), row = clean class, column = noisy class, or the path of a .npy file, or of a .npz file
            that holds it alone.

    Returns:
        float64 matrix (K, K) on the CPU.

    Raises:
        NoisyLabelError: The file cannot be read, or it is no matrix whose rows are distributions.
    """
    shown = source if isinstance(source, str) else "another one"
    try:
        matrix = torch.as_tensor(_load(source) if isinstance(source, str) else source, dtype=torch.float64)
    except _UNREADABLE as error:
        raise NoisyLabelError(f"Expected argument `transition` to be {_WANTED}, but got {shown}: {error}.") from error
    matrix = matrix.detach().cpu()
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] >= 2
    valid = square and bool((matrix >= 0).all()) and bool(((matrix.sum(dim=1) - 1).abs() < 1e-4).all())
    check_argument(valid, "transition", _WANTED, f"{shown}, shape {tuple(matrix.shape)}")
    return matrix


def _load(path: str) -> np.ndarray[Any, np.dtype[Any]]:
    loaded = np.load(Path(path).expanduser(), allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asarray(loaded)
    with loaded:
        if len(loaded.files) != 1:
            raise TypeError(f"its arrays are {loaded.files}, wanted a single one")
        return np.asarray(loaded[loaded.files[0]])
