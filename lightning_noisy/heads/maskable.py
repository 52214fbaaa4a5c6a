"""What every head has in common: a sum over edges, each of which can be switched off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.functional.scores import (
    AllReduce,
    activation_scores,
    magnitude_scores,
    obd_scores,
    signed_scores,
    std_scores,
)

WEIGHT_SCORES = {"magnitude": magnitude_scores, "signed": signed_scores}
"""Scores of the coefficients alone."""

BATCH_SCORES = ("std", "activation", "obd")
"""Scores that look at a batch."""

_SCORES = (*BATCH_SCORES, *WEIGHT_SCORES)
_ONE_OF_THEM = f"one of {', '.join(map(repr, _SCORES))}"


class MaskableHead(nn.Module, ABC):
    r"""Base of the heads: features (B, D) to logits (B, K) over K x D edges that can be masked.

    .. math:: z_o = b_o + \sum_i M_{oi} \sum_f c_{ofi}\, \phi_f(x_i)

    A subclass gives the basis :math:`\phi` and the coefficients c; masking and scores follow. A masked edge has no
    gradient and keeps its value (but for weight decay and momentum); a bias is never masked and the kept edges are not
    rescaled. The mask is a plain attribute that follows the parameters' device and dtype: a buffer would enter the
    state dict, and DDP would broadcast rank 0's.

    Attributes:
        in_features: Features D.
        out_features: Classes K.
        num_terms: Terms F of an edge.
        edge_mask: Ones and zeros (K, D) in the parameters' dtype; None keeps every edge.
        on_basis: Called with the basis (B, F, D) of each forward pass before the mask is used; may set the mask.
    """

    in_features: int
    out_features: int
    num_terms: int = 1
    edge_mask: Tensor | None = None
    on_basis: Callable[[Tensor], None] | None = None

    @abstractmethod
    def basis(self, features: Tensor) -> Tensor:
        """Terms of each feature: (B, D) to (B, F, D)."""

    @abstractmethod
    def coefficients(self, mask: Tensor | None = None) -> Tensor:
        """Coefficients (K, F, D) of the terms, zero where the mask (K, D) is."""

    def forward(self, input: Tensor) -> Tensor:
        """Features (..., D) to logits (..., K)."""
        if input.shape[-1:] != (self.in_features,):
            check_argument(False, "input", f"features (..., {self.in_features})", tuple(input.shape))
        basis = self.basis(input.reshape(-1, self.in_features))
        if self.on_basis is not None:
            self.on_basis(basis.detach())
        return self.logits(basis, self.edge_mask).view(*input.shape[:-1], self.out_features)

    def rows(self, logits: Tensor) -> Tensor:
        """What :meth:`forward` gives, or its gradient, as rows (B, K)."""
        return logits.reshape(-1, self.out_features)

    def logits(self, basis: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, K) of a basis (B, F, D), under a mask (K, D) or none."""
        return F.linear(basis.flatten(1), self.coefficients(mask).flatten(1), getattr(self, "bias", None))

    def looked_up(self) -> AbstractContextManager[None]:
        """Context around a compiled forward pass, inside which the head may use values that it read before."""
        return nullcontext()

    def edge_scores(self, features: Tensor | None = None, score: str = "std") -> Tensor:
        """Importance of every edge; the formulas stand in :mod:`lightning_noisy.functional.scores`.

        In a head of one term (linear, cosine), edges of one input rank by ``std`` and by ``activation`` as
        :math:`|W_{oi}|`, whatever the batch. Without features these two give that.

        Args:
            features: (B, D), at least one row; needed by ``"obd"``, and by ``"std"`` and ``"activation"`` in a KAN
                head.
            score: ``"std"``, ``"activation"``, ``"obd"``, ``"magnitude"`` or ``"signed"``.

        Returns:
            Scores (K, D), float32 or float64, detached.

        Raises:
            NoisyLabelError: Another score, one that needs features, or features of another shape.
        """
        check_argument(score in _SCORES, "score", _ONE_OF_THEM, score)
        if score in WEIGHT_SCORES or (features is None and self.ranks_by_magnitude(score)):
            return self.weight_scores(score if score in WEIGHT_SCORES else "magnitude")
        if features is None:
            raise NoisyLabelError(
                f"The score '{score}' of a {type(self).__name__} looks at a batch: give `features` (B, D)."
            )
        valid = features.ndim == 2 and len(features) > 0 and features.shape[1] == self.in_features
        wanted = f"features (B, {self.in_features}), at least one row"
        check_argument(valid, "features", wanted, tuple(features.shape))
        return self.batch_scores(self.basis(features.detach()).detach(), score)

    def weight_scores(self, score: str) -> Tensor:
        """A score of the coefficients alone: (K, D)."""
        return WEIGHT_SCORES[score](self._detached_coefficients())

    def batch_scores(self, basis: Tensor, score: str, all_reduce: AllReduce | None = None) -> Tensor:
        """A score that looks at a batch, from its basis (B, F, D), over all processes if they reduce: (K, D)."""
        coefficients = self._detached_coefficients()
        if score == "obd":
            logits = self.logits(basis).detach()
            probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
            return obd_scores(basis, coefficients, probabilities, all_reduce)
        scores = std_scores if score == "std" else activation_scores
        return scores(basis, coefficients, all_reduce)

    def ranks_by_magnitude(self, score: str) -> bool:
        """Whether the edges of one input rank by this score as the size of their weights, in any batch."""
        return score in ("std", "activation") and self.num_terms == 1

    def _detached_coefficients(self) -> Tensor:
        return at_least_float32(self.coefficients().detach())

    def __getstate__(self) -> dict[str, Any]:
        """Nobody listens to copies."""
        return {name: value for name, value in vars(self).items() if name != "on_basis"}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.edge_mask is not None:
            self.edge_mask = fn(self.edge_mask)
        return module


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision to float32."""
    return values if values.element_size() >= 4 else values.float()
