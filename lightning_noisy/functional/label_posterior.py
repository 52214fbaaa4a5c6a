"""How probable it is that a label is wrong, given what a network makes of its sample and how labels go wrong here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.noise import as_targets

_STEPS, _CHANGE = 200, 1e-5
_ROWS = 1 << 16  # that are in double precision at once
_START = 0.7  # of all labels are right


@dataclass(frozen=True, eq=False)
class LabelPosterior:
    """What the given labels and a network say together; on the CPU."""

    wrong: Tensor
    """Probability of each label to be wrong, float64 (N,), in [0, 1]."""

    best: Tensor
    """The most probable class of each sample, int64 (N,)."""

    transition: Tensor
    """How probable each label (column) is for each class (row), float64 (K, K)."""

    @property
    def noise_rate(self) -> float:
        """The expected share of wrong labels, in [0, 1]."""
        return float(self.wrong.mean()) if len(self.wrong) else 0.0


def label_posterior(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> LabelPosterior:
    r"""Probability that each label is wrong, with the noise model that explains all labels best.

    A network's belief :math:`\pi_i = \operatorname{softmax}(z_i / \tau)` is taken for the distribution of a sample's
    class y before its label is seen, and labels for draws from :math:`T_{yj} = P(\tilde y = j \mid y)`. Then

    .. math::
        q_{ik} = \frac{\pi_{ik} T_{k \tilde y_i}}{\sum_l \pi_{il} T_{l \tilde y_i}}, \qquad
        T_{kj} = \frac{\sum_{i: \tilde y_i = j} q_{ik} + K \bar T_{kj}}{\sum_i q_{ik} + K},

    which is iterated to a fixed point (expectation maximization, from 70 % right labels). The score of a label is
    :math:`1 - q_{i \tilde y_i}`. :math:`\bar T` has the same share of wrong labels in all classes, equally often each
    wrong class; K samples of it stand for what few samples of a class cannot tell. So a label that hardly ever is wrong
    needs more doubt than one that often is: cats that are called dogs are found among pets, trucks called dogs are not
    invented.

    After Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates, Applied Statistics 1979, with one
    observer and a network's belief instead of class frequencies.

    Args:
        logits: Of each sample, (N, K), any floating dtype; for a mean over epochs mean logits.
        labels: Given labels, integers (N,), in [0, K).
        temperature: :math:`\tau`, above 0; above 1 it trusts labels more.

    Raises:
        NoisyLabelError: Shapes that do not fit, logits that are not finite, a temperature of 0 or less.

    Example:
        >>> import torch
        >>> believed = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
        >>> label_posterior(believed, torch.tensor([0, 1, 1, 1])).wrong.gt(0.5)
        tensor([False,  True, False, False])
    """
    fits = logits.ndim == 2 and labels.shape == logits.shape[:1] and logits.shape[1] >= 2
    check_argument(fits, "logits", "(N, K) with labels (N,)", f"{tuple(logits.shape)} and {tuple(labels.shape)}")
    check_argument(bool(logits.isfinite().all()), "logits", "finite numbers", "others")
    check_argument(0 < temperature < float("inf"), "temperature", "a finite float > 0", temperature)
    given = as_targets(labels, logits.shape[1], "labels").cpu()
    beliefs = (logits.detach().float().cpu() / temperature).softmax(dim=1)
    transition = _pooled(_START, logits.shape[1])
    for _ in range(_STEPS):
        before, transition = transition, _estimate(beliefs, given, transition)
        if (transition - before).abs().max() < _CHANGE:
            break
    wrong, best = torch.empty(len(given), dtype=torch.float64), torch.empty_like(given)
    for rows in torch.arange(len(given)).split(_ROWS):
        posterior = _posterior(beliefs[rows], given[rows], transition)
        wrong[rows] = 1 - posterior.gather(1, given[rows].unsqueeze(1)).squeeze(1)
        best[rows] = posterior.argmax(dim=1)
    return LabelPosterior(wrong.clamp(0, 1), best, transition)


def _posterior(beliefs: Tensor, given: Tensor, transition: Tensor) -> Tensor:
    """How probable each class is (B, K), given the network's belief and the label."""
    joint = beliefs * transition.T[given]
    return joint / joint.sum(dim=1, keepdim=True)


def _estimate(beliefs: Tensor, given: Tensor, transition: Tensor) -> Tensor:
    """How probable each label is for each class, by the posteriors under the last estimate."""
    classes = len(transition)
    counts = torch.zeros_like(transition)  # label x class
    for rows in torch.arange(len(given)).split(_ROWS):
        counts.index_add_(0, given[rows], _posterior(beliefs[rows], given[rows], transition))
    right = float(counts.trace() / counts.sum()) if len(given) else _START
    pooled = _pooled(right, classes)
    return (counts.T + classes * pooled) / (counts.sum(dim=0).unsqueeze(1) + classes)


def _pooled(right: float, classes: int) -> Tensor:
    """Noise that is the same in all classes, (K, K)."""
    pooled = torch.full((classes, classes), (1 - right) / (classes - 1), dtype=torch.float64)
    return pooled.fill_diagonal_(right)
