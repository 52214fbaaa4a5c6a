"""What becomes of mislabeled samples: learned, memorized, or neither."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from typing_extensions import override

from lightning_noisy.callbacks.label_tracker import LabelTracker
from lightning_noisy.figures import memorization_figure
from lightning_noisy.targets import TargetCall

_CORRECT, _MEMORIZED, _OTHER, _CLEAN = 0, 1, 2, 3
_OUTCOMES = {
    "noisy": {"correct": _CORRECT, "memorized": _MEMORIZED, "other": _OTHER},
    "clean": {"correct": _CLEAN + _CORRECT, "wrong": _CLEAN + _OTHER},
}
_UNSEEN = -1


class MemorizationTracker(LabelTracker):
    """Shows what the network makes of its wrong labels.

    Each epoch it logs which share of the mislabeled samples the network predicted, in that epoch's training pass,

    - as their clean label, ``train/memorization/noisy/correct``,
    - as the wrong label they were given, ``train/memorization/noisy/memorized``,
    - as any other class, ``train/memorization/noisy/other``,

    and of the correctly labeled samples ``train/memorization/clean/correct`` and ``train/memorization/clean/wrong``.
    The shares of a group add up to 1. Early in training ``noisy/correct`` rises; a network that memorizes turns it into
    ``noisy/memorized`` later. A criterion that is called neither ``loss`` nor ``criterion`` has its name in all of
    these: ``train/memorization/losses.0/noisy/correct``.

    A TensorBoard figure shows both groups, and ``figures/memorization.png`` lies in the run's folder at the end. Each
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
        NoisyLabelError: At start: no clean labels, or some that do not fit the training set; a checkpoint of another
            data set.

    References:
        Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels, NeurIPS 2020, figure 1; Lu et
        al., Noise Attention Learning, figure 1.

    Example::

        Trainer(callbacks=[MemorizationTracker(clean_targets=labels_before_noise)])
    """

    figure_tag = "train/memorization"
    figure_name = "memorization"

    @override
    def observe_target(self, call: TargetCall) -> None:
        assert self._clean is not None
        clean, prediction = self._clean[call.index], call.logits.argmax(dim=1)
        outcome = torch.where(prediction == call.given, _MEMORIZED, _OTHER)
        outcome = torch.where(prediction == clean, _CORRECT, outcome)
        outcome = torch.where(clean == call.given, _CLEAN + outcome, outcome)
        store = self.section.store("outcome", fill=_UNSEEN, dtype=torch.int8, device=call.logits.device)
        self.section.sums.count(call.logits.shape[1], predicted=prediction, given=call.given)
        store.update(call.index, outcome)

    @override
    def epoch_metrics(self) -> dict[str, float]:
        self.judge_classes()
        if "outcome" not in self.section.stores:
            return {}
        values = self.section.stores["outcome"].values
        counts = [int((values == outcome).sum()) for outcome in range(2 * _CLEAN)]
        values.fill_(_UNSEEN)
        metrics: dict[str, float] = {}
        for group, outcomes in _OUTCOMES.items():
            members = sum(counts[outcome] for outcome in outcomes.values())
            for name, outcome in outcomes.items() if members else ():
                metrics[self.metric(self.figure_tag, f"{group}/{name}")] = counts[outcome] / members
        return metrics

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        return memorization_figure(history, title)
