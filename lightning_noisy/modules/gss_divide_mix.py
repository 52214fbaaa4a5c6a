"""GSS-SSL: DivideMix whose labels are drawn from pools of directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.direction_pool import pool_increment
from lightning_noisy.functional.losses import cross_entropy, one_hot, softmax
from lightning_noisy.functional.mixing import refine
from lightning_noisy.functional.random import hash_uniform, sample_categorical
from lightning_noisy.modules.divide_mix import DivideMix
from lightning_noisy.state import SampleStore

_POOL_STREAM = 0x706F6F6C


class GSSDivideMix(DivideMix):
    r"""Gradient switching in DivideMix: both networks have a pool for each sample, from which its labels are drawn.

    There is no official code, and the paper says little of this form (GSS-SSL) beyond the pools' growth
    (:func:`~lightning_noisy.functional.direction_pool.pool_increment`) and its four weights. These readings are ours:

    - the warm-up is DivideMix's, on the given labels; pools grow from the first division on, once an epoch at its
      start, by what the networks say of its samples in evaluation mode, and labels of the epoch are drawn afterwards;
    - as in the form with two networks (GSS-DB), a pool grows by what the *other* network predicts;
    - of labeled samples the drawn label stands in the place of the given one in refinement. Unlabeled samples are
      refined alike: the guess is :math:`w_i \hat y_i + (1 - w_i) q_i`, with little of the drawn label where it is
      hardly believed.

    Args:
        backbone: Makes a backbone; called once for each network.
        head: Makes a classifier from (D, K).
        loss: The loss of the warm-up; the paper has cross entropy.
        num_classes: K.
        lam_labeled: :math:`\lambda_1, \lambda_2` of labeled samples, weights of the predicted and of the random
            directions. Published: 0.1, 0.
        lam_unlabeled: Those of unlabeled ones. Published: 0.2, 0.5.
        initial_pool: ``"one_hot"``: pools start as the given label; ``"zeros"``: as nothing. The paper does not say.
        confidence: ``"given"``: confidence is that of the given label, as printed; ``"max"``: the largest probability.
        confidence_from: Whose confidence it is, that of the ``"other"`` network or the network's ``"own"``.
        redraw: ``"step"``: a label is drawn anew in each step; ``"epoch"``: once an epoch. The paper says both.
        unlabeled_weight_of_draw: Share of the drawn label in the guess of an unlabeled sample, in [0, 1]; None takes
            :math:`w_i`; 0 leaves DivideMix's guesses, 1 trains on draws alone.
        total_epochs: E; None takes the Trainer's ``max_epochs`` at the first start, and keeps it at resume.
        **options: As of :class:`~lightning_noisy.modules.DivideMix`.

    Raises:
        NoisyLabelError: An argument outside its range; in training, no labeled sample.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023.
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        lam_labeled: tuple[float, float] = (0.1, 0.0),
        lam_unlabeled: tuple[float, float] = (0.2, 0.5),
        initial_pool: str = "one_hot",
        confidence: str = "given",
        confidence_from: Literal["other", "own"] = "other",
        redraw: Literal["step", "epoch"] = "step",
        unlabeled_weight_of_draw: float | None = None,
        total_epochs: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        for name, pair in (("lam_labeled", lam_labeled), ("lam_unlabeled", lam_unlabeled)):
            check_argument(len(pair) == 2 and min(pair) >= 0, name, "two floats of at least 0", pair)
        check_argument(initial_pool in ("one_hot", "zeros"), "initial_pool", "'one_hot' or 'zeros'", initial_pool)
        check_argument(confidence in ("given", "max"), "confidence", "'given' or 'max'", confidence)
        known = confidence_from in ("other", "own")
        check_argument(known, "confidence_from", "'other' or 'own'", confidence_from)
        check_argument(redraw in ("step", "epoch"), "redraw", "'step' or 'epoch'", redraw)
        weight = unlabeled_weight_of_draw
        check_argument(weight is None or 0 <= weight <= 1, "unlabeled_weight_of_draw", "a float in [0, 1]", weight)
        check_count(total_epochs, "total_epochs", optional=True)
        self.lam_labeled, self.lam_unlabeled = lam_labeled, lam_unlabeled
        self.initial_pool = initial_pool
        self.confidence = confidence
        self.confidence_from = confidence_from
        self.redraw = redraw
        self.unlabeled_weight_of_draw = unlabeled_weight_of_draw
        self.total_epochs = total_epochs

    @override
    def measure(self, batch: TrainingBatch) -> dict[str, Tensor]:
        images = self.first_view(batch.images)
        logits = [network(images)[:, : self.num_classes] for network in self.networks]
        losses = torch.stack([cross_entropy(own, batch.target) for own in logits], dim=1)
        highest, predicted = softmax(torch.cat(logits)).view(len(logits), -1, self.num_classes).max(dim=2)
        sure = losses.neg().exp() if self.confidence == "given" else highest.T
        return {"losses": losses, "predicted": predicted.T, "sure": sure}

    @override
    def divide(self, epoch: int, part: Tensor) -> None:
        super().divide(epoch, part)
        progress = min(1.0, epoch / self.run.total_epochs(type(self).__name__, self.total_epochs))
        pools = self._pools()
        for some in pools.chunks(part):
            pools.put(some, pools.get(some) + self._gains(some, progress))

    def _gains(self, part: Tensor, progress: float) -> Tensor:
        """What the pools of some samples gain, (M, networks, K), at this share of the epochs."""
        predicted, sure, labeled = (self.section.stores[name].get(part) for name in ("predicted", "sure", "labeled"))
        given, predicted = self.given_labels[part], predicted.flip(1)
        sure = sure.flip(1) if self.confidence_from == "other" else sure
        first, second = torch.tensor([self.lam_unlabeled, self.lam_labeled]).to(sure)[labeled.long()].unbind(dim=2)
        gains = [
            pool_increment(given, predicted[:, n], sure[:, n], progress, first[:, n], second[:, n], self.num_classes)
            for n in range(self.num_networks)
        ]
        return torch.stack(gains, dim=1)

    @override
    def label_rows(self, number: int, batch: TrainingBatch) -> Tensor:
        pool = self.section.stores["pool"].get(batch.index)[:, number]
        *keys, step = self.draw_keys(_POOL_STREAM)
        when = step if self.redraw == "step" else number
        drawn = sample_categorical(pool, hash_uniform(*keys, when, batch.index))
        return one_hot(torch.where(pool.sum(dim=1) > 0, drawn, batch.target), self.num_classes)

    @override
    def unlabeled_targets(self, number: int, batch: TrainingBatch, guesses: Tensor) -> Tensor:
        last, weight = slice(len(batch.target) - len(guesses), None), self.unlabeled_weight_of_draw
        belief = self.belief(number, batch)[last]
        share = belief if weight is None else torch.full_like(belief, weight)
        return refine(share, self.label_rows(number, batch)[last], guesses)

    def _pools(self) -> SampleStore:
        """Those of all samples, rows (networks, K), which begin here."""
        known = "pool" in self.section.stores
        pools = self.section.store("pool", (self.num_networks, self.num_classes), device=self.device)
        if not known and self.initial_pool == "one_hot":
            for some in pools.chunks():
                given = one_hot(self.given_labels[some.cpu()], self.num_classes)
                pools.put(some, given.unsqueeze(1).expand(-1, self.num_networks, -1))
        return pools
