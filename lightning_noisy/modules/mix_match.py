"""What strategies share that divide the training set into labeled and unlabeled samples and mix them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.epoch_order import labeled_in_batch, paired_batches
from lightning_noisy.functional.losses import divergence_from_uniform, one_hot, soft_bootstrapping, softmax
from lightning_noisy.functional.mixing import guess, mix_match, refine, sharpen
from lightning_noisy.functional.schedules import linear_rampup
from lightning_noisy.modules.alternating import AlternatingModule, evaluating
from lightning_noisy.networks.classifier import Classifier

_ORDER_STREAM, _MIX_STREAM = 0x6469766964, 0x6D6978


class MixMatchModule(AlternatingModule):
    r"""Base of the strategies of DivideMix's kind: after a warm-up the training set is divided anew in each epoch.

    A subclass divides in :meth:`divide`. Each network in turn then passes over its labeled samples, in batches that
    are half labeled and half unlabeled, so that ``batch_size`` is twice the published one, and that of the warm-up the
    published one. In a step of network f, with g the other one,

    .. math::
        t_i = \operatorname{sharpen}\big(w_i y_i + (1 - w_i) \overline{f(x_i)}\big), \quad
        q_i = \operatorname{sharpen}\big(\tfrac12 (\overline{f(x_i)} + \overline{g(x_i)})\big), \quad
        \mathcal{L} = \mathcal{L}_x + \lambda_u r\, \mathcal{L}_u + \sum_k \tfrac1K \ln \frac{1/K}{\bar p_k}

    are the targets of labeled and of unlabeled samples, by means over the views of an image, and the loss of their
    mixtures (:func:`~lightning_noisy.functional.mixing.mix_match`); r grows from 0 to 1 over ``rampup_epochs``.

    The criteria are for the warm-up. Afterwards they are called with the whole batch and the given labels, so that
    callbacks see it, and are no part of the loss. All views pass through f together, in train mode, and through g in
    evaluation mode; the official codes have one pass for each view of each part, all of which move f's running
    statistics. With several processes partners are of the same process, and :math:`\bar p` is the process's mean.

    Args:
        backbone: See :class:`~lightning_noisy.modules.MultiNetworkModule`, as are the next ones.
        head: Likewise.
        loss: The loss of the warm-up.
        num_classes: K.
        warmup_epochs: Epochs of training on all labels.
        confidence_penalty: Weight of :math:`\sum_k p_k \ln p_k` in the warm-up; published: 1 for asymmetric noise.
        lambda_u: Weight of the unlabeled samples; None: mixtures that are mostly unlabeled are not looked at.
        alpha: Parameter of the Beta distribution of MixUp.
        temperature: T of sharpening.
        rampup_epochs: Epochs from the first division until :math:`\lambda_u` is reached.
        **options: ``samples_per_epoch``, ``optimizer``, ``lr_scheduler``, ``storage``, ``compile``.

    Raises:
        NoisyLabelError: An argument outside its range; in training, no labeled sample, or batches of one sample.
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {"top_k": "none is a probability", "sharded": "it divides all samples"}

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        head: Callable[[int, int], nn.Module],
        loss: nn.Module,
        num_classes: int,
        warmup_epochs: int = 10,
        confidence_penalty: float = 0.0,
        lambda_u: float | None = 25.0,
        alpha: float = 4.0,
        temperature: float = 0.5,
        rampup_epochs: float = 16,
        **options: Any,
    ) -> None:
        super().__init__(backbone, head, loss, num_classes, **options)
        check_count(warmup_epochs, "warmup_epochs")
        check_argument(confidence_penalty >= 0, "confidence_penalty", "a float >= 0", confidence_penalty)
        check_argument(lambda_u is None or lambda_u >= 0, "lambda_u", "a float >= 0, or None", lambda_u)
        check_argument(0 < alpha < math.inf, "alpha", "a finite float > 0", alpha)
        check_argument(temperature >= 0, "temperature", "a float >= 0", temperature)
        check_argument(rampup_epochs >= 0, "rampup_epochs", "a number >= 0", rampup_epochs)
        self.warmup_epochs = warmup_epochs
        self.confidence_penalty = confidence_penalty
        self.lambda_u = lambda_u
        self.alpha = alpha
        self.temperature = temperature
        self.rampup_epochs = rampup_epochs

    @abstractmethod
    def divide(self, epoch: int, part: Tensor) -> None:
        """Look at samples and call :meth:`keep_division`, at the start of an epoch.

        Args:
            epoch: Number of the epoch, from 0.
            part: The samples that it is about, int64 (M,).
        """

    @property
    def first_division(self) -> int:
        """The first epoch in which the training set is divided."""
        return self.warmup_epochs

    def labeled_share(self, labeled: Tensor) -> float:
        """The share of labeled samples in the batches of a network, by which of the epoch's are labeled, bool (M,)."""
        return 0.5

    def keep_division(self, part: Tensor, clean: Tensor, labeled: Tensor) -> None:
        """Keep what samples are divided into.

        Args:
            part: The samples, int64 (M,).
            clean: How far each network believes each label, in [0, 1], (M, networks).
            labeled: Whose labels it learns from, bool (M, networks).

        Raises:
            NoisyLabelError: There is a network without any.
        """
        # Fits of several processes may differ in the last digit.
        clean, labeled = self.trainer.strategy.broadcast((clean.cpu(), labeled.cpu()))
        if not bool(labeled.any(dim=0).all()):
            raise NoisyLabelError(
                f"{type(self).__name__} has found no label to learn from in epoch {self.current_epoch}: lower the "
                "threshold, or make the warm-up longer."
            )
        self.keep("part", part, torch.ones_like(part, dtype=torch.bool))
        self.keep("clean", part, clean)
        self.keep("labeled", part, labeled)

    def keep(self, name: str, part: Tensor, rows: Tensor, clear: bool = True) -> None:
        """Keep a row for each of these samples, the same in all processes.

        Args:
            name: Name of the store.
            part: The samples, int64 (M,).
            rows: (M, ...).
            clear: Whether the rows of other samples become zero; else they stay.
        """
        store = self.section.store(name, tuple(rows.shape[1:]), dtype=rows.dtype, device=self.device)
        if clear:
            store.values.zero_()
        store.put(part, rows)

    @override
    def prepare_epoch(self, epoch: int) -> None:
        if epoch < self.first_division:
            self.take_turns(self.shuffled_turns(epoch))
            return
        size = self.global_batch_size
        check_argument(size >= 2, "batch_size", "at least 2, for labeled and unlabeled samples", size)
        part, orders, counts = self.samples_of_epoch(epoch), [], []
        self.divide(epoch, part)
        for number, flags in enumerate(self.section.stores["labeled"].values.cpu()[part].unbind(dim=1)):
            labeled, unlabeled, keys = part[flags], part[~flags], (_ORDER_STREAM, self.run.seed, epoch, number)
            counts.append(labeled_in_batch(len(unlabeled), size, self.labeled_share(flags)))
            orders.append(paired_batches(labeled, unlabeled, counts[-1], size, *keys))
        self.take_turns(orders, counts)

    @override
    def step(self, batch: TrainingBatch) -> Tensor:
        early = self.current_epoch < self.warmup_epochs
        return self.warm_up(self.turn, batch) if early else self.learn(self.turn, batch)

    def warm_up(self, number: int, batch: TrainingBatch) -> Tensor:
        """The loss of a network on the given labels of a batch."""
        outputs = cast(Classifier, self.networks[number]).outputs(self.first_view(batch.images))
        loss = self.training_loss(self.losses[number], outputs, batch)
        if self.confidence_penalty == 0:
            return loss
        entropy = soft_bootstrapping(outputs.logits[:, : self.num_classes], eps=0.0)
        return loss - self.confidence_penalty * entropy.mean()

    def learn(self, number: int, batch: TrainingBatch) -> Tensor:
        """The loss of a network on the mixtures of a batch."""
        network, other = (cast(Classifier, self.networks[k]) for k in (number, 1 - number))
        looked_at, trained_on = self.view_roles(self.views(batch.images))
        labeled, unlabeled = slice(self.first_part), slice(self.first_part, None)
        with torch.no_grad():
            own = network.outputs(looked_at)
            self.sample_losses(self.losses[number], own, batch)
            predictions = [softmax(logits[:, : self.num_classes]) for logits in own.views]
            believed = refine(self.belief(number, batch), self.label_rows(number, batch), guess(predictions))
            refined = sharpen(believed[labeled], self.temperature)
            with evaluating(other):
                seen = [view[unlabeled] for view in looked_at]
                theirs = other.outputs(seen).views if len(seen[0]) else ()
            others = [softmax(logits[:, : self.num_classes]) for logits in theirs]
            guesses = guess([prediction[unlabeled] for prediction in predictions] + others)
            guessed = sharpen(self.unlabeled_targets(number, batch, guesses), self.temperature)
        parts = [view[labeled] for view in trained_on], refined, [view[unlabeled] for view in trained_on], guessed
        mixed = mix_match(*parts, self.alpha, *self.draw_keys(_MIX_STREAM))
        used = mixed.labeled if self.lambda_u is None else len(mixed.inputs)
        logits = network(mixed.inputs[:used])[:, : self.num_classes]
        supervised, unsupervised = mixed.losses(logits)
        penalty = divergence_from_uniform(softmax(logits).mean(dim=0))
        return supervised + self.unlabeled_weight * unsupervised + penalty

    def belief(self, number: int, batch: TrainingBatch) -> Tensor:
        """How far a network believes the labels of a batch, (B,)."""
        return self.section.stores["clean"].get(batch.index)[:, number]

    def view_roles(self, views: list[Any]) -> tuple[list[Any], list[Any]]:
        """The views that targets are made of, and those that are trained on."""
        return views, views

    def label_rows(self, number: int, batch: TrainingBatch) -> Tensor:
        """What is believed as far as a label is clean, (B, K)."""
        return one_hot(batch.target, self.num_classes)

    def unlabeled_targets(self, number: int, batch: TrainingBatch, guesses: Tensor) -> Tensor:
        """The targets of unlabeled samples before they are sharpened.

        Args:
            number: The network that learns.
            batch: The batch; its unlabeled samples are the last.
            guesses: The networks' mean predictions of them, (U, K).
        """
        return guesses

    @property
    def unlabeled_weight(self) -> float:
        r""":math:`\lambda_u r` in this batch."""
        done, batches = self.turn_progress
        since = self.current_epoch + done / batches - self.first_division
        return (self.lambda_u or 0.0) * linear_rampup(since, self.rampup_epochs)

    @override
    def ensemble(self, logits: Tensor) -> Tensor:
        """The sum of the networks' logits (networks, B, K)."""
        return logits.sum(dim=0)

    @override
    def _epoch_metrics(self) -> dict[str, float]:
        metrics, right = super()._epoch_metrics(), self._well_labeled
        if not metrics or "labeled" not in self.section.stores:
            return metrics
        part, divided = (self.section.stores[name].values.cpu() for name in ("part", "labeled"))
        for name, labeled in zip(self.members, divided[part].unbind(dim=1), strict=True):
            metrics[f"selection/{name}/size"] = float(labeled.float().mean())
            if right is not None:
                clean = right.cpu()[part]
                hits = float((labeled & clean).sum())
                metrics[f"selection/{name}/precision"] = hits / float(labeled.sum())
                metrics[f"selection/{name}/recall"] = hits / max(1.0, float(clean.sum()))
        return metrics
