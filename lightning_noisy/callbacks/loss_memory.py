"""Per-sample stores for the losses of any project."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.state import LossStores, RunDriver


class LossMemory(Callback):
    """Gives the losses of a project that keep a row for each training sample their stores.

    ELR, SAT and others remember what the network said of a sample. Their stores are made when training starts, saved in
    each checkpoint, also in the middle of an epoch, merged over processes, and refused at fit where they belong to
    another training set. Without this line such a loss is refused in a Trainer; a
    :class:`~lightning_noisy.NoisyLabelModule` needs no line.

    The project passes what the loss requires: ``self.criterion(logits, target, index=index)``.

    Raises:
        NoisyLabelError: At fit, a checkpoint of another data set, or of another number of classes.

    Example::

        self.criterion = EarlyLearningRegularization(lam=3.0)  # in your LightningModule
        Trainer(callbacks=[LossMemory()])
    """

    def __init__(self) -> None:
        self._stores = LossStores()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._join(trainer, pl_module)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._join(trainer, pl_module)  # losses that `configure_model` has made
        if not (self._stores or _keeps_its_own(pl_module)):
            rank_zero_warn(f"LossMemory does nothing: no loss of {type(pl_module).__name__} keeps a store.")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stores.begin()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stores.end()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stores.end()

    def _join(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = RunDriver.of(trainer)
        if not _keeps_its_own(pl_module):
            self._stores.join(run, pl_module)


def _keeps_its_own(pl_module: LightningModule) -> bool:
    """Whether it is a module of this package."""
    return isinstance(getattr(pl_module, "loss_stores", None), LossStores)
