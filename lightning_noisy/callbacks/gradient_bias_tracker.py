"""How much of the gradients' error adds up over training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.gradient_tracker import GradientTracker, hear_training_gradient, logit_gradient
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.figures import curves_figure
from lightning_noisy.targets import TargetCall
from lightning_noisy.trainer_access import backward_factor


class GradientBiasTracker(GradientTracker):
    r"""Shows how much of the gradients' error adds up over training, and how much cancels out.

    .. math:: b_i^{(s)} = B\, \frac{\partial \mathcal L}{\partial z_i} -
              \frac{\partial \ell(z_i, y_i)}{\partial z_i}, \qquad
              A = \frac1N \sum_i \Big\lVert \sum_s b_i^{(s)} \Big\rVert, \qquad
              S = \frac1N \sum_i \sum_s \big\lVert b_i^{(s)} \big\rVert

    over all visits s of sample i so far that it has looked at, with the loss :math:`\mathcal L` that the step returns
    for a batch of B, the loss :math:`\ell` of the criterion, and the clean label :math:`y_i`.
    ``train/gradient_bias/accumulated`` is A, ``train/gradient_bias/summed`` is S; N counts the samples that were seen.
    For a wrong label that stands both are alike: its error has the same direction each time. Targets that change
    direction from step to step keep A below S. For the mean cross entropy with targets :math:`t_i`, b is
    :math:`\operatorname{onehot}(y_i) - t_i`; where a strategy learns from n of B samples alone, it is
    :math:`\operatorname{onehot}(y_i) - p_i` for those that it leaves out, and has :math:`\frac Bn (p_i - t_i)` as its
    first part for the others. A TensorBoard figure shows both curves, and ``figures/gradient_bias.png`` lies in the
    run's folder at the end.

    The first part is the gradient that trains: it arrives at the logits in the backward pass itself, without the
    factors of gradient accumulation and of a float16 scaler; a batch whose gradient is not finite, which makes no step,
    does not count. It is that of the first backward pass through the first call of the criterion, of which the loss is
    to be a mean. The clean part is taken by a copy of the criterion, so training is the same with and without it, bit
    for bit. A sample that stands twice in a batch counts there with its first entry. The store has K + 2 numbers a
    sample.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        every_n_steps: It looks at the batches 0, n, 2n, ... of an epoch; the others cost nothing.
        **options: ``figure_every_n_epochs``, as in :class:`ConfidenceTracker`; ``criterion``, ``index_key``,
            ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no clean labels; in training, logits without a
            gradient, a criterion that sums over the batch or cannot be copied, a clean label that the network has no
            class for; at fit, a checkpoint of another data set.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023, table 2. The paper gives no equation;
        this one is for each sample, at the logits.

    Example::

        Trainer(max_epochs=150, callbacks=[GradientSwitching(), GradientBiasTracker()])
    """

    figure_tag = "train/gradient_bias"
    figure_name = "gradient_bias"
    unfit_storage: ClassVar[Mapping[str, str]] = {
        **GradientTracker.unfit_storage,
        "dtype": "they are sums over training, which would lose what is small beside them",
    }
    _trainer: Any = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._trainer = trainer

    @override
    def look(self, call: TargetCall, logits: Tensor) -> None:
        self._check_mean(call)
        wanted = logit_gradient(call, logits, self.clean_target(call))
        store = self.section.store("bias", (call.num_classes + 2,), device=logits.device)
        factor = len(logits) / backward_factor(self._trainer)

        def note(gradient: Tensor) -> None:
            error = factor * gradient - wanted
            grown = torch.cat([error, error.norm(dim=1, keepdim=True), torch.ones_like(error[:, :1])], dim=1)
            store.update(call.index, store.get(call.index) + grown.where(error.isfinite().all(), 0.0))

        hear_training_gradient(call, logits, note)

    @override
    def epoch_metrics(self) -> dict[str, float]:
        if "bias" not in self.section.stores:
            return {}
        rows = self.section.stores["bias"].values.double()
        rows = rows[rows[:, -1] > 0]
        means = {"accumulated": rows[:, :-2].norm(dim=1).mean(), "summed": rows[:, -2].mean()}
        return {self.metric(self.figure_tag, name): mean.item() for name, mean in means.items()}

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        names = {"accumulated": "of the sum, A", "summed": "sum of all, S"}
        curves = {f"{self.figure_tag}/{name}": what for name, what in names.items()}
        return curves_figure(history, {"mean norm of the bias": curves}, title)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no Trainer."""
        return {**super().__getstate__(), "_trainer": None}

    def _check_mean(self, call: TargetCall) -> None:
        own = getattr(self.pipeline.criterion, "reduction", "mean")
        if call.context.get("reduction", own) == "sum":
            raise NoisyLabelError(
                f"GradientBiasTracker compares mean losses, but `{self.pipeline.name}` sums over the batch: let its "
                "`reduction` be 'mean'."
            )
