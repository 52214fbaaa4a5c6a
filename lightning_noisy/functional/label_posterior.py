"""How probable it is that a label is wrong, given what a network makes of its sample and how labels go wrong here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_noisy.errors import check_argument
from lightning_noisy.functional.noise import as_targets

SHARPNESS = (1.0, 0.8, 0.6, 0.4)
"""How sure a network may have a right to be, in proportion to how sure it is."""
_STEPS, _CHANGE = 200, 1e-5
_ENTRIES = 1 << 20  # that are in double precision at once
_HALVINGS, _WIDEST, _EXACT = 40, 30.0, 1e-10  # of the logarithm of a factor
_LEAST, _LEAST_SINGLE = 1e-300, 1e-30
_SUREST = 15 * math.log(10)  # logarithm of the odds of a label to be right
_SURE, _SHARPEST, _BISECTIONS, _JUDGED = 0.98, 64.0, 24, 1 << 16  # how sure, by how many samples


Groups: TypeAlias = Sequence[Tensor]
"""Beliefs of the samples of each label, K times (N_j, K)."""


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
    by_label, classes, assurance = _by_label(given, known.shape[1]), known.shape[1], _assurance(known)
    models = []
    for gamma in (sharpness * assurance for sharpness in SHARPNESS):
        models.append((gamma, *_explain([(gamma * known[rows]).softmax(dim=1) for rows in by_label])))
    wrong, best = torch.zeros(len(given), dtype=torch.float64), torch.zeros_like(given)
    for label, samples in enumerate(by_label):
        for rows in torch.split(samples, max(1, _ENTRIES // classes)):
            each = (_posterior((gamma * known[rows]).softmax(dim=1), label, how, own) for gamma, how, own in models)
            posterior = torch.stack(tuple(each)).mean(dim=0)
            best[rows] = posterior.argmax(dim=1)
            posterior[:, label] = 0
            wrong[rows] = posterior.sum(dim=1)  # exact where it is tiny
    transition = torch.stack([how for _, how, _ in models]).mean(dim=0)
    return LabelPosterior(wrong.clamp(0, 1), best, transition)


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
    return _confident_rate([beliefs[rows] for rows in _by_label(labels, beliefs.shape[1])])


def _confident_rate(groups: Groups) -> float:
    # Of a class without samples NaN, which no belief reaches.
    bounds = torch.stack([beliefs[:, label].mean() for label, beliefs in enumerate(groups)])
    wrong = 0.0
    for label, beliefs in enumerate(groups):
        firm = beliefs >= bounds
        counts = firm.any(dim=1)
        other = beliefs.where(firm, -1.0).argmax(dim=1) != label
        wrong += len(beliefs) * int((counts & other).sum()) / max(1, int(counts.sum()))
    return wrong / max(1, sum(map(len, groups)))


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


def _by_label(labels: Tensor, classes: int) -> tuple[Tensor, ...]:
    """Which samples have each label, K times int64 (N_j,)."""
    return torch.split(labels.argsort(stable=True), torch.bincount(labels, minlength=classes).tolist())


def _explain(groups: Groups) -> tuple[Tensor, float]:
    """The transition matrix and the factor of labels' own share that explain them best."""
    count = sum(map(len, groups))
    rate = max(_confident_rate(groups), 1 / max(1, count))
    transition = pooled = _pooled(rate, len(groups))
    for _ in range(_STEPS):
        before, (own, other) = transition, _shares(groups, transition)
        transition = _estimate(groups, transition, own / _own_factor(own, other, rate), other, pooled)
        if (transition - before).abs().max() < _CHANGE:
            break
    return transition, _own_factor(*_shares(groups, transition), rate)


def _pooled(rate: float, classes: int) -> Tensor:
    """Noise that is the same in all classes, (K, K)."""
    pooled = torch.full((classes, classes), rate / (classes - 1), dtype=torch.float64)
    return pooled.fill_diagonal_(1 - rate)


def _posterior(beliefs: Tensor, label: int, transition: Tensor, factor: float) -> Tensor:
    """How probable each class is (B, K), given the network's belief, less what is its label's own, and the label."""
    joint = beliefs * transition[:, label]
    joint[:, label] /= factor
    return joint / joint.sum(dim=1, keepdim=True).clamp(min=_LEAST)


def _shares(groups: Groups, transition: Tensor) -> tuple[Tensor, Tensor]:
    """How probable its label is for each sample, by way of the label's own class and of all others, (N,) each."""
    others = transition.clone().fill_diagonal_(0).float()
    own = [beliefs[:, label].double() * transition[label, label] for label, beliefs in enumerate(groups)]
    return torch.cat(own), torch.cat([beliefs @ others[:, label] for label, beliefs in enumerate(groups)]).double()


def _estimate(groups: Groups, transition: Tensor, own: Tensor, other: Tensor, pooled: Tensor) -> Tensor:
    """How probable each label is for each class, by the posteriors under the last estimate, and K pooled samples."""
    sizes, all_of_it = [len(beliefs) for beliefs in groups], (own + other).clamp(min=_LEAST_SINGLE)
    weights = torch.split(all_of_it.reciprocal().float(), sizes)
    sums = torch.stack([weight @ beliefs for weight, beliefs in zip(weights, groups, strict=True)], dim=1)
    counts = transition * sums  # class x label
    right = torch.stack([share.sum() for share in torch.split(own / all_of_it, sizes)])
    counts.diagonal().copy_(right)
    classes = len(groups)
    return (counts + classes * pooled) / (counts.sum(dim=1, keepdim=True) + classes)


def _own_factor(own: Tensor, other: Tensor, rate: float) -> float:
    """The factor by which labels weigh too much in beliefs, such that the expected share of wrong ones is the rate."""
    odds = (own.clamp(min=_LEAST).log() - other.clamp(min=_LEAST).log()).clamp(max=_SUREST)  # of a label to be right
    low, factor, high = -_WIDEST, 0.0, _WIDEST
    for _ in range(_HALVINGS if len(odds) else 0):
        wrong = (factor - odds).sigmoid()
        missing = rate * len(odds) - float(wrong.sum())
        low, high = (factor, high) if missing > 0 else (low, factor)
        step = missing / max(_LEAST, float((wrong * (1 - wrong)).sum()))
        if abs(step) < _EXACT:
            break
        factor = factor + step if low < factor + step < high else (low + high) / 2
    return math.exp(factor)
