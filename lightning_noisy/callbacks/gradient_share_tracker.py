"""Who the network learns from: clean or mislabeled samples."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.gradient_tracker import GradientTracker, hear_training_gradient
from lightning_noisy.figures import curves_figure, of_groups
from lightning_noisy.targets import TargetCall


class GradientShareTracker(GradientTracker):
    r"""Shows which share of the gradient comes from clean and which from mislabeled samples.

    .. math:: s_\text{noisy} = \frac{\sum_{i:\, \tilde y_i \ne y_i} \lVert g_i \rVert}
              {\sum_i \lVert g_i \rVert}, \qquad g_i = \frac{\partial \mathcal L}{\partial z_i}

    over the samples of an epoch that it looks at, as ``train/gradient_share/noisy``; the rest is
    ``train/gradient_share/clean``. :math:`g_i` is the gradient that trains: it arrives at the logits in the backward
    pass itself, so that what a strategy leaves out, masks or weighs counts as it does, and nothing is computed twice.
    Of log-probabilities (``F.nll_loss``) it is that of the logits they were made of. A TensorBoard figure shows both,
    and ``figures/gradient_share.png`` lies in the run's folder at the end.

    A sample that an epoch visits twice counts twice. Under float16 the gradients have the factor of the scaler, which
    weighs batches of one epoch differently when it moves.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        every_n_steps: It looks at the batches 0, n, 2n, ... of an epoch; the others cost nothing.
        **options: ``figure_every_n_epochs``, as in :class:`ConfidenceTracker`; ``criterion``, ``index_key``,
            ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no clean labels; in training, logits without a
            gradient; at fit, a checkpoint of another data set.

    References:
        Lu et al., Noise Attention Learning, NeurIPS 2022, figure 3. The norm is the Euclidean one, which the paper does
        not say.

    Example::

        Trainer(callbacks=[GradientShareTracker(clean_targets=labels_before_noise)])
    """

    figure_tag = "train/gradient_share"
    figure_name = "gradient_share"

    def __init__(
        self,
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        every_n_steps: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(clean_targets, clean_key, every_n_steps=every_n_steps, **options)

    @override
    def look(self, call: TargetCall, logits: Tensor) -> None:
        assert self._clean is not None
        right, sums = self._clean[call.index] == call.given, self.section.sums
        nothing = torch.zeros((), device=logits.device)
        sums.add(1, clean=nothing, noisy=nothing)  # so that all processes have both

        def note(gradient: Tensor) -> None:
            norms = gradient.double().norm(dim=1)
            sums.add(1, clean=(norms * right).sum(), noisy=(norms * ~right).sum())

        hear_training_gradient(call, logits, note)

    @override
    def epoch_metrics(self) -> dict[str, float]:
        means = self.section.sums.means()
        total = sum(means.values())
        return {self.metric(self.figure_tag, name): mean / total for name, mean in means.items() if total > 0}

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        figure = curves_figure(history, {"share of the gradient": of_groups(self.figure_tag)}, title)
        figure.axes[0].set_ylim(0, 1)
        return figure
