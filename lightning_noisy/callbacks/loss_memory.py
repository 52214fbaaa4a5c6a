"""What the losses of any project need beside logits and target."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_noisy.callbacks.classifier_layers import default_heads
from lightning_noisy.callbacks.head_input import HeadInput
from lightning_noisy.data.batch import IndexKey
from lightning_noisy.private_api import Callback
from lightning_noisy.state import LossStores, RunDriver, outermost_losses
from lightning_noisy.targets import missing_context, pipeline_at


class LossMemory(Callback):
    """Gives the losses of a project what they need beside logits and target: stores of their own, index and epoch.

    ELR, SAT and others remember what the network said of a sample. Their stores are made when training starts, saved in
    each checkpoint, also in the middle of an epoch, merged over processes, and refused at fit where they belong to
    another training set. Without this line such a loss is refused in a Trainer; a
    :class:`~lightning_noisy.NoisyLabelModule` needs no line.

    ``index``, ``epoch``, ``total_epochs``, ``parameters`` (of the whole project) and ``features`` (what goes into the
    classifier) reach a loss that requires them without being passed: ``self.criterion(logits, target)`` is enough. Only
    ``views`` the project passes.

    Args:
        head: Dotted name of the classifier, where a loss requires features; None takes ``head``.
        index_key: Where the batch holds the index, see :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: At fit, a checkpoint of another data set, or of another number of classes.

    Example::

        self.criterion = EarlyLearningRegularization(lam=3.0)  # in your LightningModule
        Trainer(callbacks=[LossMemory()])
    """

    def __init__(self, head: str | None = None, index_key: IndexKey = None) -> None:
        self.head = head
        self.index_key = index_key
        self._features = HeadInput()
        self._stores = LossStores()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._join(trainer, pl_module)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._join(trainer, pl_module)  # losses that `configure_model` has made
        if _keeps_its_own(pl_module):
            return
        needing = {name: missing_context(loss, {}, features=True) for name, loss in outermost_losses(pl_module)}
        for name in filter(needing.get, needing):
            pipeline = pipeline_at(RunDriver.of(trainer), pl_module, name, self.index_key)
            pipeline.features = self._features.take
        if any("features" in names for names in needing.values()):
            self._features.watch(pl_module, self.head or default_heads(pl_module, "LossMemory")[0])
        if not (self._stores or any(needing.values())):
            rank_zero_warn(f"LossMemory does nothing: no loss of {type(pl_module).__name__} needs a store or context.")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stores.begin()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        self._stores.end()
        self._features.stop()

    def _join(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = RunDriver.of(trainer)
        if not _keeps_its_own(pl_module):
            self._stores.join(run, pl_module)


def _keeps_its_own(pl_module: LightningModule) -> bool:
    """Whether it is a module of this package."""
    return isinstance(getattr(pl_module, "loss_stores", None), LossStores)
