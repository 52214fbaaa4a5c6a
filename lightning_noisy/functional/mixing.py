"""Mixing samples with one another, and the targets that are mixed: MixUp, MixMatch, sharpening, refinement, guesses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_noisy.functional.losses import cross_entropy, softmax
from lightning_noisy.functional.random import hash_bits, hash_seed


def mixing_share(alpha: float, *keys: int, dominant: bool = False) -> float:
    r"""Share of a sample in a mixture with another, :math:`\lambda \sim \operatorname{Beta}(\alpha, \alpha)`.

    Args:
        alpha: Parameter of the distribution, more than 0.
        *keys: What the draw is a function of, e.g. seed, epoch and batch.
        dominant: Whether it is :math:`\max(\lambda, 1 - \lambda)`, as in MixMatch and ELR+, so that each mixture is
            mostly the sample that comes first.

    Returns:
        A float in [0, 1], or in [1/2, 1].
    """
    share = float(np.random.default_rng(hash_seed(*keys)).beta(alpha, alpha))
    return max(share, 1.0 - share) if dominant else share


def mixing_shares(alpha: float, count: int, *keys: int) -> Tensor:
    """Such a share for each of ``count`` samples, float64 on the CPU.

    Args:
        alpha: Parameter of the distribution, more than 0.
        count: How many are drawn.
        *keys: What the draws are a function of.
    """
    return torch.from_numpy(np.random.default_rng(hash_seed(*keys)).beta(alpha, alpha, size=count))


def mixing_partners(index: Tensor, *keys: int) -> Tensor:
    """Who is mixed with whom: a random permutation, in which a sample may be its own partner.

    Args:
        index: int64 (B,), what tells the rows apart: indices of samples, or positions. Equal ones keep their order.
        *keys: What the draw is a function of.

    Returns:
        int64 (B,) on the device of ``index``.
    """
    return hash_bits(*keys, index).argsort(stable=True)


def mix(values: Tensor, partners: Tensor, share: float) -> Tensor:
    r"""Rows mixed with those of their partners, :math:`\lambda v_i + (1 - \lambda) v_{\pi(i)}`.

    Args:
        values: Floating-point rows (B, ...).
        partners: int64 (B,), on any device.
        share: :math:`\lambda`.
    """
    return torch.lerp(values[partners.to(values.device, non_blocking=True)], values, share)


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    r"""Distributions with less entropy.

    .. math:: \frac{p_k^{1/T}}{\sum_j p_j^{1/T}}

    Args:
        probabilities: Rows (B, K), not negative, each with a positive entry; they need not sum to one.
        temperature: T, at least 0. 1 normalizes alone; 0 is the limit, one on the largest entry, shared where several
            are largest.

    Returns:
        Rows (B, K) that sum to one, float32 or float64.
    """
    relative = (probabilities / probabilities.amax(dim=1, keepdim=True)).log()
    inverse = math.inf if temperature == 0 else 1 / temperature
    return softmax(torch.where(relative == 0, 0.0, relative * inverse))


def refine(clean: Tensor, given: Tensor, predicted: Tensor) -> Tensor:
    r"""Labels that are believed as far as they are clean: :math:`w_i y_i + (1 - w_i) p_i`.

    Args:
        clean: Probability of each label to be right, (B,), in [0, 1].
        given: Distributions of the given labels (B, K), such as one-hot rows.
        predicted: What the network predicts, (B, K).
    """
    return torch.lerp(predicted, given.to(predicted), clean.to(predicted).unsqueeze(1))


def guess(probabilities: Sequence[Tensor]) -> Tensor:
    """The mean of what networks predict for several views of a sample.

    Args:
        probabilities: At least one tensor (B, K).
    """
    return torch.stack(list(probabilities)).mean(dim=0)


@dataclass(frozen=True, eq=False)
class MixMatch:
    """A batch of labeled and unlabeled samples that are mixed with one another."""

    inputs: Tensor
    """Mixed inputs (R, ...), those that are mostly labeled first."""

    targets: Tensor
    """Mixed targets (R, K)."""

    labeled: int
    """How many are mostly labeled."""

    def losses(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        r"""The losses of the two parts.

        .. math:: \mathcal{L}_x = -\frac{1}{|X|} \sum_{i \in X} \sum_k t_{ik} \log p_{ik}, \qquad
                  \mathcal{L}_u = \frac{1}{K |U|} \sum_{i \in U} \sum_k (p_{ik} - t_{ik})^2

        Args:
            logits: What the network says of the inputs (R, K), or of the labeled ones alone.

        Returns:
            Two scalars; zero, with a gradient of zero, for a part without rows.
        """
        first, rest = slice(self.labeled), slice(self.labeled, len(logits))
        supervised = cross_entropy(logits[first], self.targets[first])
        unsupervised = (softmax(logits[rest]) - self.targets[rest]).square()
        return _mean(supervised), _mean(unsupervised)


def mix_match(
    labeled: Sequence[Tensor],
    refined: Tensor,
    unlabeled: Sequence[Tensor],
    guessed: Tensor,
    alpha: float,
    *keys: int,
) -> MixMatch:
    r"""Mix the views of labeled and unlabeled samples with one another, as in MixMatch.

    All views of both parts are put together and mixed with one permutation of themselves and one
    :math:`\lambda = \max(l, 1 - l)`, :math:`l \sim \operatorname{Beta}(\alpha, \alpha)`, so that each mixture is mostly
    the row it is in the place of.

    Args:
        labeled: Views of the labeled samples, each (B, ...).
        refined: Their targets (B, K).
        unlabeled: Views of the unlabeled samples, each (U, ...); U may be 0.
        guessed: Their targets (U, K).
        alpha: Parameter of the Beta distribution, more than 0.
        *keys: What the draws are a function of.

    Returns:
        The mixed batch, of len(labeled) B + len(unlabeled) U rows. Targets that sum to one still do.

    References:
        Berthelot et al., MixMatch: A Holistic Approach to Semi-Supervised Learning, NeurIPS 2019. Its code interleaves
        the parts for batch normalization; DivideMix's, as this, passes all through the network together.
    """
    inputs = torch.cat([*labeled, *unlabeled])
    targets = torch.cat([refined] * len(labeled) + [guessed] * len(unlabeled))
    partners = mixing_partners(torch.arange(len(inputs), device=inputs.device), *keys)
    share = mixing_share(alpha, *keys, dominant=True)
    own = sum(len(view) for view in labeled)
    return MixMatch(mix(inputs, partners, share), mix(targets, partners, share), own)


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())
