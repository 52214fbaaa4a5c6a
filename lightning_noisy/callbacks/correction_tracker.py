"""What becomes of the labels: the given and the corrected ones against the clean ones."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.label_tracker import LabelTracker
from lightning_noisy.figures import correction_figure
from lightning_noisy.targets import TargetCall

_UNSEEN = -1


class CorrectionTracker(LabelTracker):
    r"""Shows which labels other callbacks have corrected: class by class, beside the given ones.

    .. math:: a_\text{corrected} = \frac1N \sum_i \big[\arg\max_k t_{ik} = y_i\big], \qquad
              a_\text{given} = \frac1N \sum_i \big[\tilde y_i = y_i\big]

    with the target :math:`t_i` that the criterion got at the last visit of sample i that was looked at, as
    ``train/correction/corrected`` and ``train/correction/given``; N counts the samples that were seen. Of targets that
    are drawn (:class:`GradientSwitching`) it is what the draws have come to, the largest entry of the pool. Samples are
    not unmixed: beside :class:`MixUp` it is the maximum of the mixed target.

    A TensorBoard figure has two matrices, the shares of each true class that have each given and each corrected label;
    ``figures/correction.png`` lies in the run's folder at the end.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        every_n_steps: It looks at the batches 0, n, 2n, ... of an epoch; the others cost nothing.
        **options: ``figure_every_n_epochs``, as in :class:`ConfidenceTracker`; ``criterion``, ``index_key``,
            ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no clean labels; at fit, a checkpoint of another data
            set.

    References:
        Lu et al., Noise Attention Learning, NeurIPS 2022, figures 4b and 4c.

    Example::

        Trainer(callbacks=[SELC(warmup_epochs=10), CorrectionTracker(clean_targets=labels_before_noise)])
    """

    figure_tag = "train/correction"
    figure_name = "correction"

    @override
    def observe_target(self, call: TargetCall) -> None:
        """Note the given and the corrected label of each sample."""
        settled = call.settled
        corrected = settled.argmax(dim=1) if settled.is_floating_point() else settled
        store = self.section.store("labels", (2,), fill=_UNSEEN, dtype=torch.int64, device=call.logits.device)
        store.update(call.index, torch.stack([call.given, corrected], dim=1))

    @override
    def epoch_metrics(self) -> dict[str, float]:
        if "labels" not in self.section.stores:
            return {}
        given, corrected, clean = self._rows()
        labels = {"given": given, "corrected": corrected}
        return {
            self.metric(self.figure_tag, name): (own == clean).double().mean().item() for name, own in labels.items()
        }

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        given, corrected, clean = (labels.cpu().numpy() for labels in self._rows())
        return correction_figure(clean, given, corrected, title, self.run.origins.class_names)

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Given, corrected and clean labels of the samples that were seen."""
        assert self._clean is not None
        rows = self.section.stores["labels"].values
        seen = rows[:, 0] != _UNSEEN
        given, corrected = rows[seen].unbind(dim=1)
        return given, corrected, self._clean.to(rows.device)[seen]
