"""Loaders of the sets that are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_noisy.data.in_memory import InMemoryDataset, collate
from lightning_noisy.data.on_device import DataOn, check_data_on, stays_on_device
from lightning_noisy.data.samplers import EvaluationSampler
from lightning_noisy.errors import NoisyLabelError, check_count


class SplitLoaders(LightningDataModule):
    """A data module that evaluates sets by their names, each in order, every sample in exactly one process.

    Args:
        batch_size: Batch size B of one process.
        num_workers: Worker processes of each loader.
        pin_memory: As in ``DataLoader``.
        data_on: Where samples in memory are gathered and transformed, see :class:`NoisyDataModule`.

    Raises:
        NoisyLabelError: An argument outside its range; at ``test`` and ``predict``, no test set; a set of fewer samples
            than there are processes.
    """

    def __init__(self, batch_size: int, num_workers: int, pin_memory: bool, data_on: DataOn = "loader") -> None:
        super().__init__()
        check_data_on(data_on)
        check_count(batch_size, "batch_size")
        check_count(num_workers, "num_workers", least=0, most=1024)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.data_on = data_on
        self._validation: dict[str, Dataset[Any]] = {}

    def photo_transform(self) -> Callable[[Any], Tensor]:
        """From a PIL image in RGB, as people have them, to what evaluation gives the network: a tensor (C, H, W).

        It needs none of the data.

        Raises:
            NoisyLabelError: The data are not images that could be made of a photo.
        """
        raise NoisyLabelError(
            f"{type(self).__name__} does not say how a network that it trains sees an image file: predict with a run "
            "on images, or on features that `lightning-noisy audit` or `embed` has made of some."
        )

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """What each validation loader holds: "val", "test" and further test sets, as far as there are such sets."""
        return tuple(self._validation)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """What each test loader holds: the same without "val"."""
        return tuple(split for split in self._validation if split != "val")

    def check_splits(self, stage: str) -> None:
        """Refuse a stage without data, at ``setup``: what is raised later leaves loaders as Lightning has patched them.

        Args:
            stage: That of ``setup``.

        Raises:
            NoisyLabelError: Nothing to validate, to test or to predict.
        """
        hook = {"validate": "val_dataloader", "test": "test_dataloader", "predict": "predict_dataloader"}.get(stage)
        if hook is None or getattr(type(self), hook) is not getattr(SplitLoaders, hook):
            return
        if stage != "validate":
            self._test_set()
        elif not self._validation:
            raise NoisyLabelError(
                f"This {type(self).__name__} has neither a validation nor a test set, so there is nothing to validate: "
                "give it one, see its arguments."
            )

    @override
    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [self._in_order(dataset) for dataset in self._validation.values()]

    @override
    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        first = self._in_order(self._test_set())
        further = [self._in_order(self._validation[split]) for split in self.test_splits if split != "test"]
        return [first, *further] if further else first

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self._test_set(), **self._loader_options(self._test_set()))

    def _test_set(self) -> Dataset[Any]:
        if "test" not in self._validation:
            raise NoisyLabelError(
                f"This {type(self).__name__} has no test set, which `test` and `predict` read: give it one, see its "
                "arguments."
            )
        return self._validation["test"]

    def _in_order(self, dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
        world, rank = self._processes()
        if len(dataset) < world:  # type: ignore[arg-type]
            raise NoisyLabelError(
                f"{len(dataset)} samples cannot be evaluated on {world} processes: use fewer."  # type: ignore[arg-type]
            )
        sampler = EvaluationSampler(dataset, world, rank)
        return DataLoader(dataset, sampler=sampler, **{**self._loader_options(dataset), **options})

    def _loader_options(self, dataset: Dataset[Any]) -> dict[str, Any]:
        options = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": self.pin_memory,
            "collate_fn": collate,
        }
        if isinstance(dataset, InMemoryDataset):
            by_batch = dataset.transform.by_batch
            dataset.on_device = stays_on_device(self.data_on, dataset.samples, by_batch, self.trainer)
            if dataset.on_device:  # keys alone are no work
                return {**options, "num_workers": 0, "persistent_workers": False, "pin_memory": False}
        return options

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
