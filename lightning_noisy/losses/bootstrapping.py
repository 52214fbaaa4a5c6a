"""Bootstrapping."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.losses import bootstrap_cross_entropy
from lightning_noisy.losses.base import NoisyLabelLoss


class Bootstrapping(NoisyLabelLoss):
    r"""Bootstrapping: the network's own prediction is a part of the target.

    .. math::
        \mathcal{L} = -\sum_k \big(\beta q_k + (1 - \beta) s_k\big) \log p_k, \qquad
        p = \operatorname{softmax}(z), \quad s = p \;\text{ or }\; e_{\arg\max p}

    with q the one-hot row of a label, or the target distribution.

    ``forward(logits, target)`` takes logits (B, K) of any floating dtype and int64 labels (B,) or floating-point
    targets q (B, K); it computes in float32 (float64 for float64 logits). ``beta`` is a plain attribute: set it between
    steps to schedule it.

    Reference: S. Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", ICLR workshop 2015.

    The code known for soft bootstrapping (that of Patrini et al., CVPR 2017) does not detach the prediction: its second
    term is the entropy, with the gradient through both factors; so does this class unless told otherwise. There is no
    official code of the hard form.

    Args:
        beta: Weight of the target, in [0, 1]. Paper: 0.95 (soft), 0.8 (hard).
        mode: ``"soft"``: s is the prediction; ``"hard"``: its one-hot maximum, which has no gradient.
        detach: Take a soft s as a constant.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` gets another target.

    Example:
        >>> import torch
        >>> Bootstrapping(0.95)(torch.zeros(8, 4), torch.arange(8) % 4)  # log 4
        tensor(1.3863)
    """

    soft_targets = True

    def __init__(self, beta: float = 0.95, mode: str = "soft", detach: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_argument(0.0 <= beta <= 1.0, "beta", "a float in [0, 1]", beta)
        check_argument(mode in ("soft", "hard"), "mode", "'soft' or 'hard'", mode)
        self.beta = beta
        self.mode = mode
        self.detach = detach

    @override
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return bootstrap_cross_entropy(logits, target, self.beta, self.mode, self.detach)
