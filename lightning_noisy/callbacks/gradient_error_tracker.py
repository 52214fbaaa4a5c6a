"""How far the gradient of noisy labels is from that of clean ones."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from lightning_noisy.callbacks.classifier_layers import last_backbone_layers
from lightning_noisy.callbacks.gradient_tracker import GradientTracker
from lightning_noisy.collectives import sum_over_processes
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.figures import curves_figure
from lightning_noisy.targets import TargetCall
from lightning_noisy.targets.passes import pass_aside
from lightning_noisy.trainer_access import check_not_sharded


class GradientErrorTracker(GradientTracker):
    r"""Shows how well the gradient of a batch agrees with the one that clean labels would give.

    .. math:: \cos(g, g^*) = \frac{\langle g, g^* \rangle}{\lVert g \rVert \, \lVert g^* \rVert}, \qquad
              g = \nabla_W \mathcal L(z, t), \quad g^* = \nabla_W \mathcal L(z, y)

    with the parameters W of the backbone's last layer, the project's criterion L, the target t that it gets (the noisy
    label, unless a callback changes it) and the clean label y. Both gradients go through one and the same forward pass:
    its mask, its dropout, its batch statistics. ``train/gradient_error/cosine`` is the mean over the batches that it
    looks at: 1 where wrong labels do no harm, 0 where either gradient is zero. A TensorBoard figure shows it, and
    ``figures/gradient_error.png`` lies in the run's folder at the end.

    Training is the same with and without it, bit for bit: both passes end at W, the loss is computed by a copy of the
    criterion, and nothing is drawn. Hooks that a project has on tensors between W and the logits see the two passes.
    Penalties on parameters are left out. With several processes the batch is that of all, for which each adds up its
    gradient.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        layer: Dotted name of the layer whose parameters are W; None takes the last one of the backbone of each
            :class:`~lightning_noisy.networks.Classifier` that the logits come from. A project without one names it.
        every_n_steps: It looks at the batches 0, n, 2n, ... of an epoch; the others cost nothing.
        **options: ``figure_every_n_epochs``, as in :class:`ConfidenceTracker`; ``criterion``, ``index_key``,
            ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, no clean labels, no such layer, sharded weights; in
            training, a layer that the logits do not come from, a criterion that cannot be copied, a clean label that
            the network has no class for; at fit, a checkpoint of another data set.

    References:
        Dynamic Connection Masking, arXiv 2508.09697, figure 3. The paper does not say which loss and which batches;
        here they are those of training.

    Example::

        Trainer(callbacks=[MaskRefresh(), GradientErrorTracker()])
    """

    figure_tag = "train/gradient_error"
    figure_name = "gradient_error"
    keeps_graph = True
    """Its passes go through the graph that training goes through afterwards."""

    def __init__(
        self,
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        layer: str | None = None,
        every_n_steps: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(clean_targets, clean_key, every_n_steps=every_n_steps, **options)
        self.layer = layer
        self._weights: list[nn.Parameter] = []

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        check_not_sharded(trainer, "GradientErrorTracker cannot compare gradients")
        names = (self.layer,) if self.layer is not None else last_backbone_layers(pl_module, type(self).__name__)
        modules = dict(pl_module.named_modules(remove_duplicate=False))
        if names[0] not in modules:
            raise NoisyLabelError(f"{type(pl_module).__name__} has no layer `{names[0]}`: mend the argument `layer`.")
        self._weights = [weight for name in names for weight in modules[name].parameters() if weight.requires_grad]

    @override
    def look(self, call: TargetCall, logits: Tensor) -> None:
        actual, wanted = self._gradient(call, call.target), self._gradient(call, self.clean_target(call))
        self.section.sums.add(len(logits), cosine=F.cosine_similarity(actual, wanted, dim=0))

    @override
    def epoch_metrics(self) -> dict[str, float]:
        return {self.metric(self.figure_tag, name): mean for name, mean in self.section.sums.means().items()}

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        figure = curves_figure(history, {"cosine to the clean gradient": {"train/gradient_error/cosine": ""}}, title)
        figure.axes[0].set_ylim(top=1.02)
        return figure

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._weights = []

    def __getstate__(self) -> dict[str, Any]:
        """Copies have no layer."""
        return {**super().__getstate__(), "_weights": []}

    def _gradient(self, call: TargetCall, target: Tensor) -> Tensor:
        """The gradient of all processes' batches, float64 and flat."""
        assert call.loss_of is not None
        loss = call.loss_of(target)
        of_all_samples = torch.full_like(loss, len(call.logits))
        with pass_aside():
            found = torch.autograd.grad(loss, self._weights, of_all_samples, retain_graph=True, allow_unused=True)
        reached = [gradient.detach().double().flatten() for gradient in found if gradient is not None]
        if not reached:
            raise NoisyLabelError(
                f"No gradient of `{self.pipeline.name}` reaches the layer that GradientErrorTracker looks at: name one "
                "that its logits come from with `layer`."
            )
        return sum_over_processes(torch.cat(reached))
