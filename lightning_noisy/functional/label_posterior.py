"""How probable it is that a label is wrong, given what a network makes of its sample and how labels go wrong here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.noise import as_targets

SHARPNESS = (1.0, 0.8, 0.6, 0.4)
"""How sure a network may have a right to be, in proportion to how sure it is."""
_STEPS, _CHANGE = 200, 1e-5
_ROWS = 1 << 16  # that are in double precision at once
_HALVINGS, _WIDEST, _EXACT = 40, 30.0, 1e-10  # of the logarithm of a factor
_LEAST, _PRECISION = 1e-300, 1e-15
_SURE, _SHARPEST, _BISECTIONS, _JUDGED = 0.98, 64.0, 24, 1 << 16  # how sure, by how many samples


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


def label_posterior(logits: Tensor, labels: Tensor) -> LabelPosterior:
    r"""Probability that each label is wrong, with the noise model that explains all labels best.

    A network's belief :math:`\pi_i = \operatorname{softmax}(z_i)` is taken for the distribution of a sample's class y
    before its label is seen, and labels for draws from :math:`T_{yj} = P(\tilde y = j \mid y)`. But the network has
    seen the label in training, and believes in it more than it should: by a factor :math:`e^\beta`, the same for all.

    .. math::
        q_{ik} \propto \pi_{ik} e^{-\beta [k = \tilde y_i]} T_{k \tilde y_i}, \qquad
        T_{kj} = \frac{\sum_{i: \tilde y_i = j} q_{ik} + K \bar T_{kj}}{\sum_i q_{ik} + K}, \qquad
        \frac 1 N \sum_i (1 - q_{i \tilde y_i}) = \rho

    are iterated to a fixed point (expectation maximization, from :math:`\bar T`). The score of a label is
    :math:`1 - q_{i \tilde y_i}`. :math:`\rho` is :func:`confident_noise_rate`, but at least that of one wrong label,
    which still ranks where the network has learned all labels by heart; without it every label explains itself.
    :math:`\bar T` has wrong labels at this rate in all classes, equally often each wrong class; K samples of it stand
    for what few samples of a class cannot tell. So a label that hardly ever is wrong needs more doubt than one that
    often is: where dogs are called cats, a doubtful cat is suspected before a doubtful truck.

    Nobody knows how sure the network has a right to be. All this is done for
    :math:`\operatorname{softmax}(\gamma \gamma_0 z_i)` with each :math:`\gamma` of ``SHARPNESS``, and posteriors and
    transitions are averaged. So no label is surely wrong because of one reckless prediction: what ranks first does so
    however sure the network is. :math:`\gamma_0 \ge 1` is the least factor at which the median sample's likeliest class
    has a belief of 0.98 (at most 64): losses that keep a network timid say as much about labels as others.

    After Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates, Applied Statistics 1979, with one
    observer, and a network's belief instead of class frequencies.

    Args:
        logits: Of each sample, (N, K), any floating dtype; for a mean over epochs mean logits.
        labels: Given labels, int64 (N,), in [0, K).

    Raises:
        NoisyLabelError: Shapes that do not fit, or logits that are not finite.

    Example:
        >>> import torch
        >>> believed = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
        >>> label_posterior(believed, torch.tensor([0, 1, 1, 1])).wrong.gt(0.5)
        tensor([False,  True, False, False])
    """
    fits = logits.ndim == 2 and labels.shape == logits.shape[:1] and logits.shape[1] >= 2
    check_argument(fits, "logits", "(N, K) with labels (N,)", f"{tuple(logits.shape)} and {tuple(labels.shape)}")
    check_argument(bool(logits.isfinite().all()), "logits", "finite numbers", "others")
    given = as_targets(labels, logits.shape[1], "labels").cpu()
    known = logits.detach().float().cpu()
    assurance = _assurance(known)
    posterior, transition = torch.zeros_like(known), torch.zeros(logits.shape[1], logits.shape[1], dtype=torch.float64)
    wrong = torch.zeros(len(given), dtype=torch.float64)
    for sharpness in SHARPNESS:
        beliefs = (sharpness * assurance * known).softmax(dim=1)
        explained, factor = _explain(beliefs, given)
        transition += explained / len(SHARPNESS)
        for rows in _chunks(len(given)):
            each = _posterior(beliefs[rows], given[rows], explained, factor) / len(SHARPNESS)
            posterior[rows] += each
            wrong[rows] += each.scatter(1, given[rows].unsqueeze(1), 0.0).sum(dim=1)  # exact where it is tiny
    return LabelPosterior(wrong.clamp(0, 1), posterior.argmax(dim=1), transition)


def confident_noise_rate(beliefs: Tensor, labels: Tensor) -> float:
    """The share of wrong labels by what a network believes firmly.

    A sample counts for class k where its belief in k is at least the mean belief in k of the samples that are labelled
    k; for the likeliest of several such classes. Of the samples of each label that count for a class, the share that
    counts for another one is that label's noise rate. The bounds are the network's own, so that a timid one finds
    about as many as one that is too sure of itself.

    Reference: Northcutt et al., Confident Learning, JAIR 2021. Its joint distribution, of which this is the part off
    the diagonal.

    Args:
        beliefs: Probabilities (N, K).
        labels: Given labels, int64 (N,).

    Returns:
        In [0, 1]; 0 without samples.
    """
    classes = beliefs.shape[1]
    labelled = torch.bincount(labels, minlength=classes)
    means = torch.zeros(classes).index_add_(0, labels, beliefs.gather(1, labels.unsqueeze(1)).squeeze(1))
    firm = beliefs >= means / labelled  # NaN where nothing is labelled so: never
    counts = firm.any(dim=1)
    other = beliefs.masked_fill(~firm, -1).argmax(dim=1) != labels
    each = torch.bincount(labels[counts], minlength=classes).clamp(min=1)
    wrong = torch.bincount(labels[counts & other], minlength=classes) / each
    return float((wrong * labelled).sum() / max(1, len(labels)))


def _assurance(logits: Tensor) -> float:
    """The factor, at least 1, at which the likeliest class of the median sample has a belief of 0.98."""
    some = logits[:: max(1, len(logits) // _JUDGED)]

    def is_sure(factor: float) -> bool:
        return float((factor * some).softmax(dim=1).amax(dim=1).median()) >= _SURE

    if len(some) == 0 or is_sure(1.0):
        return 1.0
    low, high = 1.0, _SHARPEST
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_sure(middle) else (middle, high)
    return high


def _chunks(count: int) -> list[slice]:
    return [slice(first, first + _ROWS) for first in range(0, count, _ROWS)]


def _explain(beliefs: Tensor, given: Tensor) -> tuple[Tensor, float]:
    """The transition matrix and the factor of labels' own share that explain them best."""
    rate = max(confident_noise_rate(beliefs, given), 1 / max(1, len(given)))
    transition = pooled = _pooled(rate, beliefs.shape[1])
    for _ in range(_STEPS):
        before, factor = transition, _own_factor(beliefs, given, transition, rate)
        transition = _estimate(beliefs, given, transition, factor, pooled)
        if (transition - before).abs().max() < _CHANGE:
            break
    return transition, _own_factor(beliefs, given, transition, rate)


def _pooled(rate: float, classes: int) -> Tensor:
    """Noise that is the same in all classes, (K, K)."""
    pooled = torch.full((classes, classes), rate / (classes - 1), dtype=torch.float64)
    return pooled.fill_diagonal_(1 - rate)


def _posterior(beliefs: Tensor, given: Tensor, transition: Tensor, factor: float) -> Tensor:
    """How probable each class is (B, K), given the network's belief, less what is its label's own, and the label."""
    joint = beliefs * transition.T[given]
    own = given.unsqueeze(1)
    joint = joint.scatter(1, own, joint.gather(1, own) / factor)
    return joint / joint.sum(dim=1, keepdim=True).clamp(min=_LEAST)


def _estimate(beliefs: Tensor, given: Tensor, transition: Tensor, factor: float, pooled: Tensor) -> Tensor:
    """How probable each label is for each class, by the posteriors under the last estimate, and K pooled samples."""
    classes = len(transition)
    counts = torch.zeros_like(transition)  # label x class
    for rows in _chunks(len(given)):
        counts.index_add_(0, given[rows], _posterior(beliefs[rows], given[rows], transition, factor))
    return (counts.T + classes * pooled) / (counts.sum(dim=0).unsqueeze(1) + classes)


def _own_factor(beliefs: Tensor, given: Tensor, transition: Tensor, rate: float) -> float:
    """The factor by which labels weigh too much in beliefs, such that the expected share of wrong ones is the rate."""
    odds = []  # of each label to be right, as logarithms
    for rows in _chunks(len(given)):
        right = _posterior(beliefs[rows], given[rows], transition, 1.0).gather(1, given[rows].unsqueeze(1)).squeeze(1)
        odds.append(right.clamp(_LEAST, 1 - _PRECISION).logit())
    low, factor, high = -_WIDEST, 0.0, _WIDEST
    for _ in range(_HALVINGS if odds else 0):
        wrong = [(factor - chunk).sigmoid() for chunk in odds]
        missing = rate * len(given) - sum(float(chunk.sum()) for chunk in wrong)
        low, high = (factor, high) if missing > 0 else (low, factor)
        step = missing / max(_LEAST, sum(float((chunk * (1 - chunk)).sum()) for chunk in wrong))
        if abs(step) < _EXACT:
            break
        factor = factor + step if low < factor + step < high else (low + high) / 2
    return math.exp(factor)
