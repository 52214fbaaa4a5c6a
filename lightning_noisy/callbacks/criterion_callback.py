"""What callbacks at a criterion share: their place in the pipeline, and what they keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from lightning_noisy.data.batch import IndexKey
from lightning_noisy.private_api import Callback
from lightning_noisy.state import RunDriver, RunState, Section
from lightning_noisy.storage import Storage, storage_for
from lightning_noisy.targets import CRITERION_NAMES, TargetPipeline, pipeline_at


class CriterionCallback(Callback, ABC):
    """Base of the callbacks that change or watch the target at a criterion.

    A subclass joins the pipeline as changer or observer, writes rows of the stores of its :attr:`section` in each
    training batch, and may give metrics once an epoch. Everything is saved, also in the middle of an epoch, and refused
    at fit if it belongs to another training set.

    Args:
        criterion: Dotted name of the criterion module; None takes ``loss``, else ``criterion``.
        index_key: Where the batch holds the index of its samples: a position, the name of an entry or attribute, or a
            function of the batch. None takes what an ``IndexedDataset`` gives, else what the loader hands out. Of a
            batch from several loaders it names the loader.
        check_labels: Whether the labels at the criterion are held to those of the samples that the index names, where
            the data set tells them, else to those that came first. False for labels that change on purpose.
        storage: How its stores keep their rows; None in whole float32 rows.

    Raises:
        NoisyLabelError: A ``storage`` that the callback cannot live with.
    """

    unfit_storage: ClassVar[Mapping[str, str]] = {
        "top_k": "they are no probabilities of classes",
        "sharded": "it looks at those of all samples",
    }
    """Arguments of :class:`~lightning_noisy.Storage` that it cannot live with, and why."""

    def __init__(
        self,
        criterion: str | None = None,
        index_key: IndexKey = None,
        check_labels: bool = True,
        storage: Storage | None = None,
    ) -> None:
        self.criterion = criterion
        self.index_key = index_key
        self.check_labels = check_labels
        kept = storage_for(type(self).__name__, storage, self.unfit_storage)
        self.section = Section(type(self).__name__, self.state_key, self.epoch_metrics, storage=kept)
        """What the callback keeps."""
        self._run: RunState | None = None
        self._pipeline: TargetPipeline | None = None

    @abstractmethod
    def join(self, pipeline: TargetPipeline) -> None:
        """Enter the pipeline as changer or observer."""

    def epoch_metrics(self) -> dict[str, float]:
        """Metrics of the epoch that ends, from stores that are equal on all processes. Called once an epoch."""
        return {}

    def metric(self, group: str, name: str) -> str:
        """The name of a metric; a criterion that is called neither ``loss`` nor ``criterion`` has its name in it."""
        usual = self.criterion is None or self.criterion in CRITERION_NAMES
        return f"{group}/{name}" if usual else f"{group}/{self.criterion}/{name}"

    @property
    def history(self) -> dict[int, dict[str, float]]:
        """Metrics of each finished epoch: epoch -> name -> value."""
        return self.section.history

    @property
    def run(self) -> RunState:
        """The run that the callback takes part in, from ``setup`` on."""
        assert self._run is not None, "no run before `setup`"
        return self._run

    @property
    def pipeline(self) -> TargetPipeline:
        """The pipeline at the criterion, from the start of a fit on."""
        assert self._pipeline is not None, "no pipeline before a fit"
        return self._pipeline

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(criterion=self.criterion)

    def take_part(self, run: RunState) -> None:
        """Keep what is kept in a run.

        Args:
            run: The run; what it has loaded for the callback's section is taken over.
        """
        run.add(self.section)
        self._run = run

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.take_part(RunDriver.of(trainer))

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pipeline = pipeline_at(self.run, pl_module, self.criterion, self.index_key, self.check_labels)
        self.join(self._pipeline)

    def __getstate__(self) -> dict[str, Any]:
        """Copies stand outside the run that the original takes part in."""
        return {**self.__dict__, "_run": None, "_pipeline": None}
