"""What is in the pools of gradient switching."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.label_tracker import LabelTracker
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.figures import curves_figure, of_groups
from lightning_noisy.targets import DirectionPools, TargetCall

_UNKNOWN = -1.0


class PoolTracker(LabelTracker):
    r"""Shows how open the pools of :class:`GradientSwitching` are, and how far they follow the network.

    .. math:: H_i = -\frac{1}{\ln K} \sum_k q_{ik} \ln q_{ik}, \qquad
              r_i = q_{i\, \arg\max_k p_{ik}}, \qquad q_i = \frac{D_i}{\sum_k D_{ik}}

    with the pool :math:`D_i` after its update in the pass that gave the prediction :math:`p_i`, which in
    :class:`~lightning_noisy.modules.GSSDual` is the other network's (``criterion="losses.1"``). Each epoch it logs the
    means over the samples it looked at: the entropy as ``train/pool/entropy/clean`` and ``train/pool/entropy/noisy``,
    0 for a pool of one label and 1 for one that is even, and the share of the predicted direction as
    ``train/pool/predicted/clean`` and ``train/pool/predicted/noisy``. Without clean labels it is ``.../all``, and a
    line says so once. A TensorBoard figure shows the curves, and ``figures/pool.png`` lies in the run's folder at the
    end.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        every_n_steps: It looks at the batches 0, n, 2n, ... of an epoch; the others cost nothing.
        **options: ``figure_every_n_epochs``, as in :class:`ConfidenceTracker`; ``criterion``, ``index_key``,
            ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: An argument outside its range; at start, clean labels that do not fit the training set, or no
            pools at the criterion; at fit, a checkpoint of another data set.

    References:
        Gradient Switching Strategy for learning with noisy labels, CVPR 2023, section 5.1: its pools. The two measures
        are those of this package.

    Example::

        Trainer(max_epochs=150, callbacks=[GradientSwitching(), PoolTracker()])
    """

    figure_tag = "train/pool"
    figure_name = "pool"

    def __init__(
        self,
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        every_n_steps: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(clean_targets, clean_key, every_n_steps=every_n_steps, **options)
        self._pools: DirectionPools | None = None

    @override
    def without_clean_labels(self) -> None:
        rank_zero_info("PoolTracker knows no clean labels, so it reports the whole training set.")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        changers = self.pipeline.members.changers
        self._pools = next((changer for changer in changers if isinstance(changer, DirectionPools)), None)
        if self._pools is None:
            raise NoisyLabelError(
                f"PoolTracker shows the pools of GradientSwitching, but there is none at `{self.pipeline.name}`: "
                "list it among the callbacks."
            )

    @override
    def observe_target(self, call: TargetCall) -> None:
        """Note both measures of each sample, and whether its given label is wrong (-1: nobody knows)."""
        assert self._pools is not None
        pool = self._pools.pool(call.index)
        assert pool is not None
        shares = pool / pool.sum(dim=1, keepdim=True).clamp(min=torch.finfo(pool.dtype).tiny)
        entropy = torch.special.entr(shares).sum(dim=1) / math.log(call.num_classes)
        predicted = shares.gather(1, self._pools.predicted(call)[0].unsqueeze(1)).squeeze(1)
        wrong = torch.full_like(entropy, _UNKNOWN)
        if self._clean is not None:
            wrong = (self._clean[call.index] != call.given).to(entropy)
        store = self.section.store("pool", (3,), fill=float("nan"), device=call.logits.device)
        store.update(call.index, torch.stack([entropy, predicted, wrong], dim=1))

    @override
    def epoch_metrics(self) -> dict[str, float]:
        if "pool" not in self.section.stores:
            return {}
        values = self.section.stores["pool"].values
        *measures, wrong = values.double().unbind(dim=1)
        groups = {"all": wrong == _UNKNOWN, "clean": wrong == 0, "noisy": wrong == 1}
        metrics = {
            self.metric(self.figure_tag, f"{name}/{group}"): measure[members].mean().item()
            for name, measure in zip(("entropy", "predicted"), measures, strict=True)
            for group, members in groups.items()
            if bool(members.any())
        }
        values.fill_(float("nan"))
        return metrics

    @override
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        labels = {"entropy": "entropy of the pool / ln K", "predicted": "share of the predicted direction"}
        panels = {label: of_groups(f"{self.figure_tag}/{name}") for name, label in labels.items()}
        figure = curves_figure(history, panels, title)
        for axes in figure.axes:
            axes.set_ylim(0, 1)
        return figure

    def __getstate__(self) -> dict[str, Any]:
        """Copies look at no pools yet."""
        return {**super().__getstate__(), "_pools": None}
