"""Determinant-based mutual information."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from lightning_noisy.collectives import process_count
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import determinant_mutual_information, joint_distribution
from lightning_noisy.losses.base import NoisyLabelLoss


class DeterminantMutualInformation(NoisyLabelLoss):
    r"""Determinant-based mutual information (L_DMI): an information of labels and predictions that noise only scales.

    .. math::
        \mathcal{L} = -\log(|\det U| + \epsilon), \qquad U_{jk} = s \sum_i [y_i = j]\, p_{ik}, \quad
        p = \operatorname{softmax}(z)

    with the scale s = 1 (counts) or 1 / B (a joint distribution). Noise that depends on the class alone multiplies U by
    a constant matrix, which the logarithm turns into a constant. The loss knows no right order of the classes: start
    from a network that was trained with cross entropy. A batch without a sample of some class has determinant 0; with
    many classes give it large batches.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,), no soft targets; it
    computes in float32 (float64 for float64 logits), the determinant in float64. There is one value for the batch
    and none for a sample: ``"mean"`` has it once and ``"sum"`` B times. With several processes it is that of all their
    samples, a collective that all of them enter, with batches of one size.

    Reference: Y. Xu, P. Cao, Y. Kong and Y. Wang, "L_DMI: A Novel Information-theoretic Loss Function for Training Deep
    Nets Robust to Label Noise", NeurIPS 2019.

    The paper's U is the joint distribution. The official code has ``eps`` 1e-3 and counts: for ten classes the
    determinant of a joint distribution is at most 1e-10, beside which that ``eps`` leaves no gradient. So does this
    class unless told otherwise. That code starts from the best cross-entropy model, with a learning rate of 1e-6 on
    CIFAR-10 and batches of 128 or 256.

    Args:
        eps: Added to the determinant, finite and more than 0.
        average: Take the joint distribution instead of counts; choose ``eps`` accordingly.
        reduction: ``"mean"`` or ``"sum"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> loss = DeterminantMutualInformation()
        >>> loss(100 * torch.eye(4), torch.arange(4))  # -log(1 + 0.001)
        tensor(-0.0010)
    """

    sample_values = False

    def __init__(self, eps: float = 1e-3, average: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 < eps < math.inf, "eps", "a finite float > 0", eps)
        self.eps = eps
        self.average = average

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        joint = self.batch_mean(joint_distribution(logits, target).unsqueeze(0))
        if not self.average:
            joint = joint * (len(target) * (process_count() if self.training else 1))
        return determinant_mutual_information(joint, self.eps).expand(len(target))
