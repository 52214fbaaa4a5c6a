"""Which samples a criterion pays attention to."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.label_tracker import LabelTracker
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.figures import attention_figure
from lightning_noisy.targets import AttentiveCriterion, TargetCall, TargetPipeline


class AttentionTracker(LabelTracker):
    r"""Shows the attention :math:`\tau_i` that noise attention learning pays to clean and to mislabeled samples.

    .. math:: a_\text{noisy} = \operatorname{mean}_{i:\, \tilde y_i \ne y_i} \tau_i

    over the samples of an epoch that it looks at, as ``train/attention/noisy``, and likewise ``train/attention/clean``.
    A TensorBoard figure has the histogram of :math:`\tau` for both groups, and its mean for each pair of true class and
    given label, of the last epoch; ``figures/attention.png`` lies in the run's folder at the end.

    The attention is that of the same pass: of the logits and features that the criterion gets. It is computed once
    more in the batches that are looked at, a product of features (B, D) with D weights; the loss stays as it is.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        every_n_steps: It looks at the batches 0, n, 2n, ... of an epoch; the others cost nothing.
        **options: ``figure_every_n_epochs``, as in :class:`ConfidenceTracker`; ``criterion``, ``index_key``,
            ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no clean labels, or a criterion without a method
            ``sample_attention(logits, **context)``, which :class:`~lightning_noisy.losses.NoiseAttentionLoss` has; at
            fit, a checkpoint of another data set.

    References:
        Lu et al., Noise Attention Learning, NeurIPS 2022, figures 2 and 4a.

    Example::

        Trainer(callbacks=[SELC(warmup_epochs=59, floor=1e-4), AttentionTracker()])
    """

    figure_tag = "train/attention"
    figure_name = "attention"

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        if not isinstance(pipeline.criterion, AttentiveCriterion):
            raise NoisyLabelError(
                f"AttentionTracker shows how much attention `{pipeline.name}` pays to samples, but "
                f"{type(pipeline.criterion).__name__} has no `sample_attention`: use NoiseAttentionLoss."
            )
        super().join(pipeline)

    @override
    def observe_target(self, call: TargetCall) -> None:
        """Note the attention of each sample, its given label, and the epoch."""
        criterion = self.pipeline.criterion
        assert isinstance(criterion, AttentiveCriterion)
        attention = criterion.sample_attention(call.logits, **call.context)
        rows = [attention, call.given.to(attention), torch.full_like(attention, call.epoch)]
        store = self.section.store("attention", (3,), fill=-1, device=call.logits.device)
        store.update(call.index, torch.stack(rows, dim=1))

    @override
    def epoch_metrics(self) -> dict[str, float]:
        attention, given, clean = self._rows(self.run.open_epoch)
        groups = {"clean": given == clean, "noisy": given != clean}
        return {
            self.metric(self.figure_tag, name): attention[members].mean().item()
            for name, members in groups.items()
            if bool(members.any())
        }

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        attention, given, clean = (rows.cpu().numpy() for rows in self._rows(max(history)))
        return attention_figure(attention, clean, given, title, self.run.origins.class_names)

    def _rows(self, epoch: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Attention, given and clean labels of the samples that were seen in an epoch."""
        assert self._clean is not None
        if "attention" not in self.section.stores:
            return torch.empty(0), self._clean[:0], self._clean[:0]
        rows = self.section.stores["attention"].values
        seen = rows[:, 2] == epoch
        attention, given, _ = rows[seen].unbind(dim=1)
        return attention.double(), given.long(), self._clean.to(rows.device)[seen]
