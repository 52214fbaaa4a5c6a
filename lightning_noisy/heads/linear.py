"""The linear head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.errors import check_argument
from lightning_noisy.heads.maskable import EdgeMask


class LinearHead(EdgeMask, nn.Linear):
    r"""A linear classifier whose edges can be masked.

    .. math:: z_o = \sum_i M_{oi} W_{oi} x_i + b_o

    State-dict keys are those of ``torch.nn.Linear`` (weight, bias), so checkpoints of one load into the other. A masked
    edge has no gradient and keeps its value (but for weight decay and momentum); the bias is never masked and the kept
    edges are not rescaled.

    Args:
        in_features: Features D.
        out_features: Classes K.
        bias: Whether there is a bias.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K)."""
        weight = self.weight if self.edge_mask is None else self.weight * self.edge_mask
        return F.linear(input, weight, self.bias)

    def edge_scores(self, features: Tensor | None = None, score: str = "std") -> Tensor:
        r"""Spread of each edge's activation over the batch.

        .. math:: U_{oi} = \operatorname{std}_b(x_{bi} W_{oi}) = |W_{oi}| \operatorname{std}_b(x_{bi})

        By the second form the edges of one input rank as :math:`|W_{oi}|`, whatever the batch. So without features the
        scores are :math:`|W_{oi}|`: the same node-wise mask, with an order also for features that are constant in a
        batch, equal on all processes without communication.

        Args:
            features: (B, D) or None.
            score: ``"std"``.

        Returns:
            Scores (K, D), float32 (float64 of float64 weights), detached.
        """
        check_argument(score == "std", "score", "'std'", score)
        weight = self.weight.detach().abs()
        weight = weight if weight.element_size() >= 4 else weight.float()
        if features is None:
            return weight
        centred = features.detach().to(weight) - features.detach().to(weight).mean(dim=0)
        return weight * centred.square().mean(dim=0).sqrt()
