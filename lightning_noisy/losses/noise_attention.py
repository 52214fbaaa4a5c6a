"""Noise attention loss."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.losses import confidence_logits, noise_attention, one_hot
from lightning_noisy.losses.base import NoisyLabelLoss


class NoiseAttentionLoss(NoisyLabelLoss):
    r"""Noise attention learning (NAL): a branch on the features learns which targets to learn from.

    .. math::
        \tau = \operatorname{clip}(\sigma(w^\top f + b)), \quad
        u = \max\big(\tau p + (1 - \tau) t,\, \epsilon\big), \quad
        \mathcal{L} = -\sum_k t_k \log u_k - \lambda \log \tau - \beta \sum_k u_k \log \max(t_k, \epsilon_t)

    with :math:`p = \operatorname{softmax}(z)` and :math:`\tau`, :math:`p` clipped to
    :math:`[\epsilon_a, 1 - \epsilon_a]`. For a label y and :math:`\beta = 0` the gradient of cross entropy is scaled
    by :math:`p_y / (p_y - 1 + 1 / \tau)` (Theorem 1): near zero attention stops the memorization of a wrong label.
    :math:`\beta > 0` is the robust variant RNAL: the reversed term is to NAL what reverse cross entropy is to cross
    entropy in SCE.

    ``forward(logits, target, features=features)`` takes logits (B, K) of any floating dtype, features (B, D) and
    int64 labels (B,) or floating-point targets (B, K); it computes in float32 (float64 for float64 logits), the
    attention branch in the dtype of its weights, autocast or not. The branch is a parameter of the loss: train it with
    the network. The target is a constant to the loss; the paper's running average of it belongs to a target policy,
    :class:`lightning_noisy.callbacks.SELC` with ``floor=1e-4``, which takes :math:`\tau` from :meth:`sample_attention`
    where it has an ``attention_threshold``. Without one the given labels stand (NAL without target estimation).

    With ``attention="confidence"`` there is no branch and :math:`\tau = \max_k p_k`, with the gradient through it;
    features are not needed then. No public code shows how that ablation treats the gradient.

    Reference: Y. Lu, Y. Bo and W. He, "Noise Attention Learning: Enhancing Noise Robustness by Gradient Scaling",
    NeurIPS 2022.

    How the official code differs from the paper's Eq. (3): it clips as above (``eps`` 1e-7, ``attention_eps`` 1e-12)
    and floors every target at 1e-4 without renormalizing, so that in warm-up the classes that are not the label weigh
    1e-4 each. Here labels are exact one-hot rows as in the paper; ``label_floor=1e-4``, with store rows floored by
    the target policy, gives the official values. The floor inside the reversed term's logarithm is always there
    (``target_eps``) and changes nothing for floored targets; the official code has none for unfloored ones and returns
    NaN, even at ``beta=0``, where this class does not compute the term. In float32, 1 - 1e-12 is 1.

    Args:
        in_features: D, the width of the features; None leaves it to :meth:`bind`.
        lam: Weight of the attention penalty, finite and at least 0. Paper: 0.5 (CIFAR-10, ANIMAL-10N), 10 (CIFAR-100),
            50 (Clothing1M, WebVision).
        beta: Weight of the reversed term, finite and at least 0. The code has 0.1 for Clothing1M and WebVision and 0
            elsewhere.
        eps: Floor of the mixture u, in (0, 1).
        attention_eps: Clip of tau and p at both ends, in [0, 0.5).
        target_eps: Floor of the target inside the logarithm of the reversed term, in (0, 1).
        label_floor: Weight that an int64 label leaves to each other class, in [0, 1); 0 is the exact one-hot row.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        attention: What tau is made of: ``"branch"``, the branch, or ``"confidence"``, the largest probability.

    Raises:
        NoisyLabelError: An argument is out of range, or ``forward`` lacks features, comes before :meth:`bind` or gets
            a target of another dtype or shape.

    Example:
        >>> import torch
        >>> loss = NoiseAttentionLoss(in_features=16, lam=10.0)
        >>> loss(torch.randn(8, 4), torch.arange(8) % 4, features=torch.randn(8, 16)).shape
        torch.Size([])
    """

    soft_targets: ClassVar[bool] = True

    branch: nn.Linear | None
    """The attention branch, D -> 1; None before :meth:`bind` and where there is none."""

    def __init__(
        self,
        in_features: int | None = None,
        lam: float = 0.5,
        beta: float = 0.0,
        eps: float = 1e-7,
        attention_eps: float = 1e-12,
        target_eps: float = 1e-4,
        label_floor: float = 0.0,
        reduction: str = "mean",
        attention: str = "branch",
    ) -> None:
        super().__init__(reduction)
        sources = ("branch", "confidence")
        check_argument(attention in sources, "attention", "'branch' or 'confidence'", attention)
        check_count(in_features, "in_features", optional=True)
        check_argument(0.0 <= lam < math.inf, "lam", "a finite float >= 0", lam)
        check_argument(0.0 <= beta < math.inf, "beta", "a finite float >= 0", beta)
        check_argument(0.0 < eps < 1.0, "eps", "a float in (0, 1)", eps)
        check_argument(0.0 <= attention_eps < 0.5, "attention_eps", "a float in [0, 0.5)", attention_eps)
        check_argument(0.0 < target_eps < 1.0, "target_eps", "a float in (0, 1)", target_eps)
        check_argument(0.0 <= label_floor < 1.0, "label_floor", "a float in [0, 1)", label_floor)
        self.lam = lam
        self.beta = beta
        self.eps = eps
        self.attention_eps = attention_eps
        self.target_eps = target_eps
        self.label_floor = label_floor
        self.attention = attention
        self.branch = None
        if attention == "branch" and in_features is not None:
            self.branch = nn.Linear(in_features, 1)

    @property
    def requires(self) -> tuple[str, ...]:  # type: ignore[override]
        """The features, where there is an attention branch."""
        return ("features",) if self.attention == "branch" else ()

    def bind(self, num_features: int, num_classes: int) -> None:
        """Make the attention branch, unless ``in_features`` made it or there is none.

        Args:
            num_features: Width D of the network's features.
            num_classes: Not used.

        Raises:
            NoisyLabelError: The branch there is has another width.
        """
        if self.attention == "confidence":
            return
        if self.branch is None:
            self.branch = nn.Linear(num_features, 1)
        width = self.branch.in_features
        check_argument(width == num_features, "in_features", f"{num_features}, the width of the features", width)

    def attention_logits(self, features: Tensor) -> Tensor:
        r"""Output of the attention branch; :math:`\tau` is its sigmoid.

        Args:
            features: Floating-point tensor (B, D).

        Returns:
            Tensor (B, 1) in the dtype of the branch.

        Raises:
            NoisyLabelError: There is no branch yet.
        """
        if self.branch is None:
            raise NoisyLabelError(
                "NoiseAttentionLoss has no attention branch yet: give it `in_features`, call "
                "`bind(num_features, num_classes)` before the optimizer is made, or use it in a NoisyLabelModule."
            )
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.branch(features.to(self.branch.weight.dtype))
        return logits

    def sample_attention(self, logits: Tensor, *, features: Tensor | None = None) -> Tensor:
        r"""The attention :math:`\tau` of each sample, as the loss has it.

        Args:
            logits: Floating-point tensor (B, K).
            features: Features (B, D) the logits were made of, for the attention branch.

        Returns:
            Tensor (B,) in [``attention_eps``, 1 - ``attention_eps``], float32 or float64.

        Raises:
            NoisyLabelError: No features, or no attention branch yet.
        """
        attention = self._attention(logits, features).reshape(-1)
        wide = attention.to(torch.promote_types(logits.dtype, torch.float32))
        return wide.sigmoid().clamp(self.attention_eps, 1.0 - self.attention_eps)

    def _attention(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """The number whose sigmoid is tau, of whatever it is made."""
        if self.attention == "confidence":
            return confidence_logits(logits)
        if features is None:
            raise self.missing("features")
        return self.attention_logits(features)

    @override
    def losses(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        if not target.is_floating_point():
            dtype = torch.promote_types(logits.dtype, torch.float32)
            target = one_hot(target, logits.shape[1], self.label_floor, dtype)
        return noise_attention(
            logits,
            target,
            self._attention(logits, features),
            self.lam,
            self.beta,
            self.eps,
            self.attention_eps,
            self.target_eps,
        )
