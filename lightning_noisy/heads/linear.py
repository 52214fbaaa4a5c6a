"""Heads with one term per edge: linear, cosine, and linear ones with dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.collectives import process_rank, sum_over_processes
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.random import hash_uniform
from lightning_noisy.heads.maskable import MaskableHead

_STREAM = 0x636F6E6E656374  # keeps these draws apart from other draws under the same key


class _LinearTerms(MaskableHead, nn.Linear):
    """The basis and the coefficients of ``nn.Linear``."""

    def basis(self, features: Tensor) -> Tensor:
        """The features themselves, (B, 1, D)."""
        return features.unsqueeze(1)

    def coefficients(self, mask: Tensor | None = None) -> Tensor:
        """The weight (K, 1, D)."""
        return (self.weight if mask is None else self.weight * mask).unsqueeze(1)


class LinearHead(_LinearTerms):
    r"""A linear classifier whose edges can be masked.

    .. math:: z_o = b_o + \sum_i M_{oi} W_{oi} x_i

    State-dict keys are those of ``torch.nn.Linear`` (weight, bias), so checkpoints of one load into the other.

    The published score of an edge is the spread of its activation, and :math:`\operatorname{std}_b(x_{bi} W_{oi}) =
    |W_{oi}| \operatorname{std}_b(x_{bi})`: among the edges of one input it ranks by :math:`|W_{oi}|`, whatever the
    batch.

    Args:
        in_features: Features D.
        out_features: Classes K.
        bias: Whether there is a bias.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Features (..., D) to logits (..., K)."""
        if self.on_basis is not None or input.shape[-1:] != (self.in_features,):
            return super().forward(input)
        # The views of the general form take a fifth of the time of a small head.
        weight = self.weight if self.edge_mask is None else self.weight * self.edge_mask
        return F.linear(input, weight, self.bias)


class DropoutHead(_LinearTerms):
    r"""A linear classifier with dropout on its features: a baseline for masking.

    .. math:: z_o = b_o + \sum_i W_{oi} \frac{r_{bi}}{1 - p} x_{bi}, \qquad r_{bi} \sim \operatorname{Bernoulli}(1 - p)

    in training; without r in evaluation.

    Args:
        in_features: Features D.
        out_features: Classes K.
        ratio: Probability p of dropping a feature, in [0, 1).

    Reference: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
    """

    def __init__(self, in_features: int, out_features: int, ratio: float = 0.5) -> None:
        super().__init__(in_features, out_features)
        check_argument(0 <= ratio < 1, "ratio", "a float in [0, 1)", ratio)
        self.ratio = ratio

    def basis(self, features: Tensor) -> Tensor:
        """The features, some of them dropped in training, (B, 1, D)."""
        return F.dropout(features, self.ratio, self.training).unsqueeze(1)


class DropConnectHead(_LinearTerms):
    r"""A linear classifier that drops random edges in each training step: a baseline for masking.

    .. math:: z_o = b_o + \sum_i \frac{R_{oi}}{1 - p} W_{oi} x_i, \qquad R_{oi} \sim \operatorname{Bernoulli}(1 - p)

    in training; without R in evaluation. One R holds for the whole batch, also where several processes share it: they
    take that of the first, a collective of one number, so each has to call the head in each training batch. The paper
    draws one for each sample, which takes B times the memory of the weight, and normalizes in evaluation by a Gaussian
    moment match instead of rescaling in training. The draws come from torch's stream; ``StepSeed`` makes them resume.

    Args:
        in_features: Features D.
        out_features: Classes K.
        ratio: Probability p of dropping an edge, in [0, 1).

    Reference: Wan et al., "Regularization of Neural Networks using DropConnect", ICML 2013.
    """

    def __init__(self, in_features: int, out_features: int, ratio: float = 0.5) -> None:
        super().__init__(in_features, out_features)
        check_argument(0 <= ratio < 1, "ratio", "a float in [0, 1)", ratio)
        self.ratio = ratio

    def logits(self, basis: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, K), some of the edges dropped in training."""
        weight = self.coefficients(mask).flatten(1)
        return F.linear(basis.flatten(1), self._dropped(weight) if self.training else weight, self.bias)

    def _dropped(self, weight: Tensor) -> Tensor:
        """The weight under a new R, the same on all processes."""
        key = torch.randint(1 << 62, (), device=weight.device)
        key = sum_over_processes(key if process_rank() == 0 else torch.zeros_like(key))
        edges = torch.arange(weight.numel(), device=weight.device).view_as(weight)
        return weight * (hash_uniform(_STREAM, key, edges) >= self.ratio) / (1 - self.ratio)


class CosineHead(MaskableHead):
    r"""A cosine classifier: logits are scaled cosines of the angle between features and class weights.

    .. math:: z_o = T \sum_i M_{oi} \frac{W_{oi}}{\lVert W_o \rVert} \frac{x_i}{\lVert x \rVert}

    There is no bias. The mask comes after the normalization, so it rescales nothing; edges of one input rank by
    :math:`|W_{oi}| / \lVert W_o \rVert`. A masked edge still counts in :math:`\lVert W_o \rVert`, through which alone
    it has a gradient. How masking and this head meet is not published; this is our reading.

    Args:
        in_features: Features D.
        out_features: Classes K.
        temperature: T, more than 0; SURE uses 8.

    Reference: Li et al., "SURE: SUrvey REcipes for building reliable and robust deep networks", CVPR 2024.
    """

    def __init__(self, in_features: int, out_features: int, temperature: float = 8.0) -> None:
        super().__init__()
        check_argument(temperature > 0, "temperature", "a float of more than 0", temperature)
        self.in_features = in_features
        self.out_features = out_features
        self.temperature = temperature
        self.weight = nn.Parameter(nn.Linear(in_features, out_features, bias=False).weight.detach())

    def basis(self, features: Tensor) -> Tensor:
        """Features of length one, (B, 1, D)."""
        return F.normalize(features, dim=1).unsqueeze(1)

    def coefficients(self, mask: Tensor | None = None) -> Tensor:
        """Class weights of length T, (K, 1, D)."""
        weight = self.temperature * F.normalize(self.weight, dim=1)
        return (weight if mask is None else weight * mask).unsqueeze(1)

    def extra_repr(self) -> str:
        """The plain arguments, for ``print``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, temperature={self.temperature}"
