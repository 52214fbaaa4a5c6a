"""Confidence in the given labels, over clean and over mislabelled samples."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.clean_targets import CleanTargets
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.callbacks.figures import log_figure, save_figure
from lightning_noisy.errors import check_argument
from lightning_noisy.plots import confidence_figure
from lightning_noisy.targets import TargetCall, TargetPipeline
from lightning_noisy.trainer import run_folder


class ConfidenceTracker(CriterionCallback):
    r"""Shows memorisation: how sure the network is of the labels it was given.

    Each epoch it logs the mean over the training set of :math:`p_{i \tilde y_i}`, the predicted probability of the
    given label in that epoch's training pass: ``train/conf/clean`` over samples whose given label is right and
    ``train/conf/noisy`` over mislabelled ones. A network that memorises raises the second towards 1. Without clean
    labels it logs ``train/conf/all`` and says so once.

    A TensorBoard figure shows both curves, and ``figures/confidence.png`` lies in the run's folder at the end. Each
    sample counts once an epoch, also under DDP, whose sampler repeats some.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        figure_every_n_epochs: How often the TensorBoard figure is drawn; also at the end.
        criterion: Dotted name of the criterion; None takes ``loss``, else ``criterion``.
        index_key: Where the batch holds the index; None takes the last entry of a tuple, or ``index`` of a dict.

    Raises:
        NoisyLabelError: Clean labels that do not fit the training set; at fit, a checkpoint of another data set.

    Example::

        Trainer(callbacks=[ConfidenceTracker(clean_targets=labels_before_noise)])
    """

    def __init__(
        self,
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        figure_every_n_epochs: int = 10,
        criterion: str | None = None,
        index_key: int | str | None = None,
    ) -> None:
        super().__init__(criterion, index_key)
        check_argument(figure_every_n_epochs >= 1, "figure_every_n_epochs", "at least 1", figure_every_n_epochs)
        self.clean_targets = CleanTargets(clean_targets, clean_key)
        self.figure_every_n_epochs = figure_every_n_epochs
        self._clean: Tensor | None = None

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_observer(self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.stores.training_set is not None
        self._clean = self.clean_targets.resolve(trainer, self.stores.training_set.num_samples, pl_module.device)
        if self._clean is None:
            rank_zero_info(
                "ConfidenceTracker knows no clean labels, so it reports the whole training set; "
                "pass `clean_targets`, or use a data module that has them."
            )

    def observe_target(self, call: TargetCall) -> None:
        """Note the confidence of each sample, and whether its given label is wrong (-1: nobody knows)."""
        confidence = call.probabilities.gather(1, call.given.unsqueeze(1)).squeeze(1)
        wrong = torch.full_like(confidence, -1.0)
        if self._clean is not None:
            wrong = (self._clean[call.index] != call.given).to(confidence)
        table = self.stores.table("confidence", (2,), fill=float("nan"), device=call.logits.device)
        table.update(call.index, torch.stack([confidence, wrong], dim=1))

    @override
    def epoch_figures(self) -> dict[str, float]:
        if "confidence" not in self.stores.tables:
            return {}
        values = self.stores.tables["confidence"].values
        confidence, wrong = values.double().unbind(dim=1)
        groups = {"all": wrong == -1, "clean": wrong == 0, "noisy": wrong == 1}
        figures = {
            f"train/conf/{name}": confidence[members].mean().item()
            for name, members in groups.items()
            if bool(members.any())
        }
        values.fill_(float("nan"))
        return figures

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if (trainer.current_epoch + 1) % self.figure_every_n_epochs == 0 and self.history:
            log_figure(trainer, "train/conf", confidence_figure(self.history))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        if self.history:
            figure = confidence_figure(self.history)
            log_figure(trainer, "train/conf", figure)
            save_figure(trainer, folder, "confidence", figure)
