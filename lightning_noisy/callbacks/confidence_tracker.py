"""Confidence in the given labels, over clean and over mislabeled samples."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from typing_extensions import override

from lightning_noisy.callbacks.label_tracker import LabelTracker
from lightning_noisy.figures import confidence_figure
from lightning_noisy.targets import TargetCall


class ConfidenceTracker(LabelTracker):
    r"""Shows memorization: how sure the network is of the labels it was given.

    Each epoch it logs the mean over the training set of :math:`p_{i \tilde y_i}`, the predicted probability of the
    given label in that epoch's training pass: ``train/conf/clean`` over samples whose given label is right and
    ``train/conf/noisy`` over mislabeled ones. A network that memorizes raises the second towards 1. Without clean
    labels it logs ``train/conf/all`` and says so once. A criterion that is called neither ``loss`` nor ``criterion``
    has its name in all of these: ``train/conf/losses.0/clean``.

    A TensorBoard figure shows both curves, and ``figures/confidence.png`` lies in the run's folder at the end. Each
    sample counts once an epoch, also under DDP, whose sampler repeats some. A class that has labels and that the last
    epoch has (almost) never predicted is said in a line at the end.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        figure_every_n_epochs: How often the TensorBoard figure is drawn; also at the end.
        **options: ``every_n_steps``, as in :class:`LabelTracker`; ``criterion``, ``index_key``, ``check_labels``,
            ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: Clean labels that do not fit the training set; at fit, a checkpoint of another data set.

    Example::

        Trainer(callbacks=[ConfidenceTracker(clean_targets=labels_before_noise)])
    """

    figure_tag = "train/conf"
    figure_name = "confidence"

    @override
    def without_clean_labels(self) -> None:
        rank_zero_info(
            "ConfidenceTracker knows no clean labels, so it reports the whole training set; "
            "pass `clean_targets`, or use a data module that has them."
        )

    @override
    def observe_target(self, call: TargetCall) -> None:
        """Note the confidence of each sample, and whether its given label is wrong (-1: nobody knows)."""
        confidence = call.probabilities.gather(1, call.given.unsqueeze(1)).squeeze(1)
        wrong = torch.full_like(confidence, -1.0)
        if self._clean is not None:
            wrong = (self._clean[call.index] != call.given).to(confidence)
        store = self.section.store("confidence", (2,), fill=float("nan"), device=call.logits.device)
        self.section.sums.count(call.logits.shape[1], predicted=call.logits.argmax(dim=1), given=call.given)
        store.update(call.index, torch.stack([confidence, wrong], dim=1))

    @override
    def epoch_metrics(self) -> dict[str, float]:
        self.judge_classes()
        if "confidence" not in self.section.stores:
            return {}
        values = self.section.stores["confidence"].values
        confidence, wrong = values.double().unbind(dim=1)
        groups = {"all": wrong == -1, "clean": wrong == 0, "noisy": wrong == 1}
        metrics = {
            self.metric(self.figure_tag, name): confidence[members].mean().item()
            for name, members in groups.items()
            if bool(members.any())
        }
        values.fill_(float("nan"))
        return metrics

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        return confidence_figure(history, title)
