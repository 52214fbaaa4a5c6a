"""The labels of joint optimization: the mean of a network's last predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.epoch_window import mean_before, note, window_shape
from lightning_noisy.targets import TargetCall, TargetPipeline


class JointOptimizationLabels(CriterionCallback):
    r"""Replaces the given labels by the mean prediction of the last epochs.

    In epochs :math:`e <` ``warmup_epochs`` the given label stands. Then the target of sample i is

    .. math:: t_i = \frac{1}{n} \sum_{e' = e - n}^{e - 1} \operatorname{softmax}\big(z_i^{(e')}\big)
              \qquad\text{or}\qquad \arg\max_k t_{ik}

    with the predictions of the training passes (train mode, augmented, detached) of the last n epochs before this one,
    as far as the sample was visited in them; without any, its label stands. A second visit in an epoch gets the target
    of the first, and its prediction takes the place of the first's; of a sample that stands twice in a batch the first
    entry is noted. The store ``"prediction"`` has (n + 1) (K + 1) numbers a sample.

    Use it with :class:`lightning_noisy.losses.JointOptimization`, in a first run; :class:`LabelWriter` writes the
    labels that a second one starts from.

    Args:
        warmup_epochs: Epochs with the given labels, at least 1. Public code: 70 of 200.
        window: n, at least 1. Published: 10.
        labels: ``"soft"``: the mean; ``"hard"``: its maximum.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, a criterion that cannot take soft targets, or a second
            callback that replaces the target; at fit, a checkpoint of another data set.

    References:
        Tanaka et al., Joint Optimization Framework for Learning with Noisy Labels, CVPR 2018. The public code (Chainer)
        computes the labels at the end of each epoch from the ``warmup_epochs``-th on and takes epochs without a
        prediction for zeros, which matters only for fewer than n epochs of warm-up.

    Example::

        Trainer(max_epochs=200, callbacks=[JointOptimizationLabels(warmup_epochs=70)])
    """

    replaces_target = True
    unfit_storage: ClassVar[Mapping[str, str]] = {"top_k": "a row holds predictions of several epochs"}

    def __init__(
        self,
        warmup_epochs: int = 70,
        window: int = 10,
        labels: str = "soft",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_count(warmup_epochs, "warmup_epochs")
        check_count(window, "window")
        check_argument(labels in ("soft", "hard"), "labels", "'soft' or 'hard'", labels)
        self.warmup_epochs = warmup_epochs
        self.window = window
        self.labels = labels
        self.makes_soft_targets = labels == "soft"

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_changer(self)

    def begins_at(self) -> dict[str, int]:
        """The argument that delays something, and the epoch, from 0, in which it first happens."""
        return {"warmup_epochs": self.warmup_epochs}

    def change_target(self, call: TargetCall) -> Tensor:
        """The labels of the batch; its predictions are noted for later."""
        if call.epoch < self.warmup_epochs - self.window:
            return call.target
        shape = window_shape(self.window, call.num_classes)
        store = self.section.store("prediction", shape, device=call.logits.device)
        rows = store.get(call.index)
        store.update(call.index, note(rows, call.probabilities, call.epoch))
        return call.target if call.epoch < self.warmup_epochs else self._labels_of(rows, call)

    def _labels_of(self, rows: Tensor, call: TargetCall) -> Tensor:
        """Means of the predictions that there are; else the target so far."""
        mean, known = mean_before(rows, call.epoch)
        labels = torch.where(known.unsqueeze(1), mean, call.rows(call.target).to(mean))
        return call.soft_target(labels) if self.labels == "soft" else labels.argmax(dim=1)
