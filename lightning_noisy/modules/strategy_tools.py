"""What strategies select, draw, score and note with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_noisy.collectives import gather_rows, own_rows, process_count, sum_over_processes
from lightning_noisy.data.batch import TrainingBatch
from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.sample_losses import SampleLosses
from lightning_noisy.modules.in_run import ModuleInRun
from lightning_noisy.state import Section
from lightning_noisy.state.scoring import Measure, score_training_set
from lightning_noisy.storage import Storage, storage_for
from lightning_noisy.trainer_access import from_datamodule, training_loaders

_RIGHT, _CLEAN, _SIZE = "right", "clean", "size"
_NO_ROWS = "it has none: its callbacks and its loss take a `storage` of theirs"


class StrategyTools(ModuleInRun):
    """Selection within the batch of all processes, draws that are functions of their keys, passes over all samples."""

    unfit_storage: ClassVar[Mapping[str, str]] = dict.fromkeys(("dtype", "top_k", "sharded", "folder"), _NO_ROWS)
    """Arguments of :class:`~lightning_noisy.Storage` that its own stores cannot live with, and why: all, unless a
    strategy with stores says otherwise."""
    exact_rows: ClassVar[tuple[str, ...]] = ()
    """Names of stores whose rows are whole in float32 in any case."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.section = Section(type(self).__name__, "module", self._epoch_metrics)
        """What the module keeps."""
        self._well_labeled: Tensor | None = None

    def keep_rows(self, storage: Storage | None) -> None:
        """Let the module's own stores keep their rows in this way.

        Args:
            storage: None: in whole float32 rows.

        Raises:
            NoisyLabelError: One that the strategy cannot live with.
        """
        kept = storage_for(type(self).__name__, storage, self.unfit_storage)
        self.section.storage = kept
        self.section.storages = dict.fromkeys(self.exact_rows, replace(kept, dtype="float32", top_k=None))

    def selected_mean(self, losses: SampleLosses | Tensor, chosen: Tensor) -> Tensor:
        r"""The mean loss of the chosen samples of all processes.

        .. math:: W \sum_{i \in \text{own}} s_i \ell_i \Big/ \sum_{i \in \text{all}} s_i w_i

        With W processes their mean, which DDP takes of gradients, is then the mean over the global selection. Under
        gradient accumulation the selection is that of each batch alone.

        Args:
            losses: Of this process's samples, with the weights :math:`w` of the criterion's mean; a tensor (B,) has 1.
            chosen: s, bool or weights (B,).

        Returns:
            Scalar: zero with a gradient where nothing is chosen anywhere.
        """
        if isinstance(losses, Tensor):
            losses = SampleLosses(losses, torch.ones_like(losses))
        share = chosen.to(losses.losses.dtype)
        total = (losses.losses.where(share != 0, 0.0) * share).sum()
        count = sum_over_processes((losses.weights * share).sum().detach())
        return total * (process_count() / count.where(count != 0, 1.0))

    def gather_batch(self, rows: Tensor) -> Tensor:
        """The rows of all processes, (B, ...) to (W B, ...) without gradient, as one process would have them."""
        return gather_rows(rows)

    def local_rows(self, rows: Tensor) -> Tensor:
        """This process's part of such rows, (W B, ...) to (B, ...)."""
        return own_rows(rows)

    def draw_keys(self, stream: int) -> tuple[int, int, int, int]:
        """What a draw of this batch is a function of: (stream, seed, epoch, number of the batch).

        Args:
            stream: A number that keeps the draws apart from others.
        """
        batch = self.run.batch
        return stream, self.run.seed, self.current_epoch, 0 if batch is None else batch.batch_idx

    def score(self, measure: Measure, training: bool = False, part: Tensor | None = None) -> None:
        """Look at training samples without learning, each once: in :meth:`prepare_epoch`.

        Images are those of evaluation, one view, where a data module of this package gives them. The rows are kept in
        ``self.section.stores``, so they are saved, and a resume inside the epoch does not repeat the pass.

        Args:
            measure: From a :class:`~lightning_noisy.data.batch.TrainingBatch` to named rows, each (B, ...).
            training: Whether networks are in train mode. Running statistics and random streams stay as they are.
            part: The samples, int64 (M,); None: all, in order. The others keep the rows that they have.
        """
        score_training_set(type(self).__name__, self, self.section, measure, training, part)

    def note(self, **values: Tensor | float) -> None:
        """Log the mean of values over the epoch, under their own names.

        Args:
            **values: Scalars, which count as often as the batch has samples, or tensors (M,), which count one each.
        """
        batch = self.run.batch
        if batch is not None:
            count = sum(map(len, batch.indices().values()))
            tensors = {name: self._tensor(value) for name, value in values.items()}
            self.section.sums.add(count, **tensors)

    def _tensor(self, value: Tensor | float) -> Tensor:
        """A number is filled in where the others are, instead of copied there."""
        return value if isinstance(value, Tensor) else torch.full((), float(value), device=self.device)

    def note_selection(self, chosen: Tensor, batch: TrainingBatch, name: str = "") -> None:
        """Log how much is selected, and with known clean labels how much of it is right, and of what is right.

        Args:
            chosen: bool (B,).
            batch: The batch.
            name: Whose selection it is: ``selection/<name>/size``, ``precision``, ``recall``.
        """
        place = f"selection/{name}" if name else "selection"
        noted = {f"{place}/{_SIZE}": chosen.float().mean()}
        if self._well_labeled is not None:
            clean = self._well_labeled[batch.index]
            noted |= {f"{place}/{_RIGHT}": (chosen & clean).float().mean(), f"{place}/{_CLEAN}": clean.float().mean()}
        self.note(**noted)

    @property
    def history(self) -> dict[int, dict[str, float]]:
        """Training metrics of each finished epoch: epoch -> name -> value."""
        return self.section.history

    @property
    def given_labels(self) -> Tensor:
        """The labels of the training set, int64 (N,).

        Raises:
            NoisyLabelError: Nobody tells them before the samples are seen.
        """
        if self.run.labels is None:
            raise NoisyLabelError(
                f"{type(self).__name__} needs the labels of all training samples before it trains: give the data set "
                "an attribute `targets`, (N,), or use a data module of lightning_noisy."
            )
        return self.run.labels

    @property
    def sampler(self) -> EpochSampler:
        """What says which samples an epoch visits.

        Raises:
            NoisyLabelError: The training loader has another sampler.
        """
        sampler = getattr(training_loaders(self.trainer)[0], "sampler", None)
        if not isinstance(sampler, EpochSampler):
            raise NoisyLabelError(
                f"{type(self).__name__} says which samples an epoch visits: use a data module of lightning_noisy, or "
                "`ResumableLoader(train_set, batch_size=..., sampler=EpochSampler(train_set))`."
            )
        return sampler

    @property
    def global_batch_size(self) -> int:
        """Samples of a training batch over all processes."""
        size: int = training_loaders(self.trainer)[0].batch_size
        return size * self.trainer.world_size

    def find_clean_labels(self) -> None:
        """Learn which given labels are right, where the data module knows."""
        clean, given = from_datamodule(self.trainer, "clean_targets"), self.run.labels
        right = None if clean is None or given is None else torch.as_tensor(clean) == given
        self._well_labeled = None if right is None else torch.as_tensor(right, device=self.device)

    def _epoch_metrics(self) -> dict[str, float]:
        means = self.section.sums.means()
        named = {name if "/" in name else f"train/{name}": mean for name, mean in means.items()}
        return _with_ratios(named)


def _with_ratios(means: Mapping[str, float]) -> dict[str, float]:
    """Precision and recall of each selection in the place of what they are made of."""
    metrics = dict(means)
    for place in [name.removesuffix(f"/{_RIGHT}") for name in means if name.endswith(f"/{_RIGHT}")]:
        right, clean = metrics.pop(f"{place}/{_RIGHT}"), metrics.pop(f"{place}/{_CLEAN}")
        if size := metrics[f"{place}/{_SIZE}"]:
            metrics[f"{place}/precision"] = right / size
        if clean:
            metrics[f"{place}/recall"] = right / clean
    return metrics
