"""What trackers of predictions share: clean labels, rows of an epoch, and a figure."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.clean_targets import CleanTargets
from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.callbacks.said_once import say_once
from lightning_noisy.errors import NoisyLabelError, check_count
from lightning_noisy.figures import FigureWriter
from lightning_noisy.functional.collapse import collapse_message, collapsed_classes
from lightning_noisy.targets import TargetCall, TargetPipeline


class LabelTracker(CriterionCallback):
    """Base of the observers that compare predictions of the training pass with given and clean labels.

    A subclass notes a row for each sample in :meth:`observe_target`, makes metrics of all rows in ``epoch_metrics``,
    and draws their history. Each sample counts once an epoch,
    with its last visit, also under DDP, whose sampler repeats some. It looks at the batches 0, n, 2n, ... of an epoch
    with n = ``every_n_steps``; the others cost nothing.

    Args:
        clean_targets: Clean labels: a tensor (N,) or the path of a .npy / .npz file; None asks the data module for
            ``clean_targets``.
        clean_key: Name of the array inside an .npz file.
        figure_every_n_epochs: How often the TensorBoard figure is drawn; also at the end.
        every_n_steps: n, at least 1.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.
    """

    figure_tag: ClassVar[str]
    figure_name: ClassVar[str]

    def __init__(
        self,
        clean_targets: Tensor | str | None = None,
        clean_key: str | None = None,
        figure_every_n_epochs: int = 10,
        every_n_steps: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_count(every_n_steps, "every_n_steps")
        self.every_n_steps = every_n_steps
        self.clean_targets = CleanTargets(clean_targets, clean_key)
        tag = self.metric(self.figure_tag, "").rstrip("/")
        name = self.figure_name + tag.removeprefix(self.figure_tag).replace("/", "-")
        self.figures = FigureWriter(self._draw, tag, name, figure_every_n_epochs)
        self._clean: Tensor | None = None
        self._collapse: str | None = None

    @abstractmethod
    def observe_target(self, call: TargetCall) -> None:
        """Note the rows of a batch."""

    @abstractmethod
    def draw(self, history: dict[int, dict[str, float]], title: str) -> Figure:
        """The figure of all finished epochs.

        Args:
            history: Their metrics, by the names that they have at the usual criterion.
            title: The criterion's name where it is another one.
        """

    def without_clean_labels(self) -> None:
        """Say what follows when nobody knows the clean labels.

        Raises:
            NoisyLabelError: Nothing can be measured then, unless a subclass knows better.
        """
        raise NoisyLabelError(
            f"{type(self).__name__} compares with clean labels, but knows none: pass `clean_targets`, a "
            "tensor (N,) or the path of a .npy or .npz file, or use a data module that has them."
        )

    def judge_classes(self) -> None:
        """Find the classes that have labels and were (almost) never predicted in the epoch that ends: a collective.

        A subclass counts those ``predicted`` and those ``given`` in the sums of its section. What the last epoch has
        given up is said at the end of training.
        """
        seen, names = self.section.sums.counts(), self.run.origins.class_names
        lost = collapsed_classes(seen["predicted"], seen["given"]) if seen else []
        share = float(seen["given"][lost].sum() / seen["given"].sum()) if lost else 0.0
        called = None if names is None else list(names)
        self._collapse = collapse_message(lost, share, called) if lost else None

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_observer(self)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.section.num_samples is not None
        self._collapse = None
        self._clean = self.clean_targets.resolve(trainer, self.section.num_samples, self.section.device)
        if self._clean is None:
            self.without_clean_labels()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.figures.end_epoch(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.figures.end_training(trainer)
        say_once(self._collapse)

    def _draw(self) -> Figure | None:
        if not self.history:
            return None
        ours, usual = self.metric(self.figure_tag, ""), f"{self.figure_tag}/"
        shown = {
            epoch: {usual + name.removeprefix(ours): value for name, value in seen.items()}
            for epoch, seen in self.history.items()
        }
        return self.draw(shown, "" if ours == usual else str(self.criterion))
