"""What data modules share: noise, splits, loaders, evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_noisy.data.backdoor import BackdoorTrigger
from lightning_noisy.data.backdoor.picture import show_backdoor
from lightning_noisy.data.backdoor.poisoning import PixelRange, attacked_test_set, poisoned_training_set
from lightning_noisy.data.image_datasets import EvaluationDataset, TrainingDataset
from lightning_noisy.data.in_memory import InMemoryDataset
from lightning_noisy.data.labeled_images import LabeledImages, Rows
from lightning_noisy.data.loader import ResumableLoader
from lightning_noisy.data.manifest import build_manifest, show_transitions, write_manifest
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.data.on_device import DataOn
from lightning_noisy.data.origins import Sources, origin_arrays, sources_of
from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.data.sharded import ShardedSampler
from lightning_noisy.data.split_loaders import SplitLoaders
from lightning_noisy.data.splits import known_labels_of, split_rows, training_labels
from lightning_noisy.errors import check_argument
from lightning_noisy.functional.label_statistics import noise_rate
from lightning_noisy.trainer_access import run_folder, run_seed


class NoisyDataModule(SplitLoaders, ABC):
    """Base of the data modules: a labeled training set gets label noise, a validation split and resumable loaders.

    The noise is drawn once, on the whole training set, from the seed; the validation split is taken from it afterwards.
    Training batches are ``(images, target, index)`` with ``index`` in [0, N) over the training split. The test set is
    never noisy. It is evaluated every epoch as a second validation loader, so that the accuracy of the last epoch is
    known, and never chooses anything. A data module may have none.

    At fit start ``noise.json`` and ``noisy_labels.npz`` (noise, seed, requested and realized rate, hash, transition
    counts, the labels) are written into the run's folder, and where clean labels are known a figure of what became of
    each class, ``figures/transition.png``, which TensorBoard shows as well.

    A ``backdoor`` poisons a share of the training images, after the noise and before the split: they show a trigger,
    and their labels are the target class. The test images of the other classes, each with the trigger, are then a
    further split, "backdoor": ``backdoor/success`` is the share of them that is taken for the target class,
    ``backdoor/acc`` the share that is still taken for its own. The files at fit start say which samples are poisoned,
    and ``figures/backdoor.png`` shows some.

    Args:
        noise: Label noise; None keeps the labels.
        batch_size: Batch size B of one process.
        num_workers: Worker processes of each loader.
        val_fraction: Share of the training set that becomes the validation split, in [0, 1); 0 makes none.
        noisy_val: Whether the validation split keeps its noisy labels, and its triggers, as it would in practice.
        seed: Seed of noise, backdoor, split, order and augmentation; None takes the run's (``seed_everything``), else
            0.
        pin_memory: As in ``DataLoader``.
        backdoor: A :class:`~lightning_noisy.data.LocalTrigger` or :class:`~lightning_noisy.data.GlobalTrigger`.
        data_on: Where samples that are in memory are gathered and transformed. ``"device"``: they stay on the device of
            the run, the loader hands out keys, without workers, and a batch is made when it is moved there; what is
            drawn for a sample is the same. ``"loader"``: on the CPU, by workers if there are some. ``"auto"`` takes the
            device where it is a GPU, no transform goes image by image, and the samples have at most 2 GiB.
        sharded: Whether each process visits samples of its own in all epochs (:class:`ShardedSampler`).

    Raises:
        NoisyLabelError: An argument outside its range; at ``setup``, an empty training set or training split, noise for
            a training set that comes with its own, ``noisy_val=False`` where nobody knows clean labels, or a backdoor
            without a test set, for what are no images, or whose trigger does not show in them; at ``test`` and
            ``predict``, no test set.
    """

    num_classes: int
    class_names: Sequence[str] | None = None
    """Names of the classes 0 to K - 1, None where nobody knows them; those in the data from ``setup`` on."""
    num_clean_classes: int | None = None
    """Number of clean classes where some training images belong to none of the ``num_classes``."""
    pixel_range: PixelRange = None
    """Black and white of the images as they come, for a backdoor; None are bytes."""

    def __init__(
        self,
        noise: LabelNoise | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        val_fraction: float = 0.0,
        noisy_val: bool = True,
        seed: int | None = None,
        pin_memory: bool = False,
        backdoor: BackdoorTrigger | None = None,
        data_on: DataOn = "auto",
        sharded: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory, data_on)
        check_argument(0 <= val_fraction < 1, "val_fraction", "a float in [0, 1)", val_fraction)
        self.noise = noise
        self.val_fraction = val_fraction
        self.noisy_val = noisy_val
        self.seed = run_seed(seed)
        self.backdoor = backdoor
        self.sharded = sharded
        self.noisy_targets: Tensor
        """Labels the training split is trained on, int64 (N,); from ``setup`` on."""
        self.clean_targets: Tensor | None
        """Clean labels of the training split, int64 (N,), None where nobody knows them; from ``setup`` on."""
        self.realized_noise_rate: float | None
        """Share of wrong labels in the training split, None where nobody knows it; from ``setup`` on."""
        self.poisoned: Tensor
        """Which samples of the training split have the backdoor, bool (N,); from ``setup`` on."""
        self._train: Dataset[Any]
        self._scored: Dataset[Any]
        self._sampler: EpochSampler | None = None

    @abstractmethod
    def training_images(self) -> LabeledImages:
        """The whole training set."""

    @abstractmethod
    def test_images(self) -> LabeledImages | None:
        """The test set with its clean labels, None without one."""

    def evaluation_images(self) -> dict[str, LabeledImages]:
        """The sets beside the training set, by the first part of their metrics' names.

        That is "test" by default; a subclass may add "val", a validation set of its own, first, and further test sets
        at the end.
        """
        test = self.test_images()
        return {} if test is None else {"test": test}

    @abstractmethod
    def training_transform(self) -> Callable[[Any], Any]:
        """From a raw image to an augmented tensor (C, H, W), or to a list of views, each such a tensor.

        For images in memory it may be a :class:`~lightning_noisy.data.batch_transforms.BatchTransform`, from a batch.
        """

    @abstractmethod
    def evaluation_transform(self) -> Callable[[Any], Any]:
        """From a raw image to a tensor (C, H, W), without augmentation; likewise."""

    def training_dataset(
        self, images: LabeledImages, rows: Tensor, targets: Tensor, transform: Callable[[Any], Any]
    ) -> Dataset[Any]:
        """A data set of samples ``(image, target, index)``, with ``targets`` as an attribute.

        Args:
            images: The whole training set.
            rows: Positions in it, int64 (N,).
            targets: Given labels at these positions, int64 (N,).
            transform: As :meth:`training_transform` gives it.
        """
        sources = images.sources_of(rows)
        if images.samples is not None:
            return InMemoryDataset(images.samples, rows, targets, transform, self.seed, True, sources)
        return TrainingDataset(Rows(images.image, rows), targets, transform, self.seed, sources)

    def evaluation_dataset(self, images: LabeledImages, rows: Tensor, targets: Tensor) -> Dataset[Any]:
        """A data set of samples ``(image, target)``; arguments as for :meth:`training_dataset`."""
        sources = images.sources_of(rows)
        if images.samples is not None:
            return InMemoryDataset(images.samples, rows, targets, self.evaluation_transform(), sources=sources)
        return EvaluationDataset(Rows(images.image, rows), targets, self.evaluation_transform(), sources)

    def training_sampler(self, processes: int, rank: int) -> EpochSampler:
        """Makes the sampler that gives the order of the training split."""
        return (ShardedSampler if self.sharded else EpochSampler)(self._train, processes, rank, self.seed)

    @property
    def sampler(self) -> EpochSampler:
        """The sampler of the training loader, the same over all epochs and reloads; from ``setup`` on.

        ``sampler.select(indices)`` says which samples it visits.
        """
        if self._sampler is None:
            self._sampler = self.training_sampler(*self._processes())
        return self._sampler

    def scoring_loader(self) -> DataLoader[Any]:
        """The training split in order, for a pass that looks at every sample: ``(images, target, index)``.

        Images are those of evaluation, without augmentation and as one view; with several processes each has a part,
        every sample in exactly one.
        """
        return self._in_order(self._scored, persistent_workers=False)

    @property
    def sources(self) -> Sources:
        """What the samples of the training split are in the user's own data, in the order of their indices.

        Paths, text (N,), or rows of the array or table, int64 (N,), also behind a validation split; from ``setup`` on.
        """
        return sources_of(self._train)

    @property
    def attacked_splits(self) -> dict[str, int]:
        """The splits whose images all show a trigger, each with the class that it leads to."""
        return {} if self.backdoor is None else {"backdoor": self.backdoor.target}

    @override
    def setup(self, stage: str) -> None:
        images, others = self.training_images(), self.evaluation_images()
        name = type(self).__name__
        clean, noisy = training_labels(images, self.noise, self.num_classes, self.seed, name, self.class_names)
        if clean is not None and self.noise is not None and self.noise.corrects(images, clean, self.class_names):
            clean = None
        original, poisoned = images, torch.zeros(len(noisy), dtype=torch.bool)
        if self.backdoor is not None:
            attack = self.backdoor, self.num_classes, self.pixel_range
            images, noisy, poisoned = poisoned_training_set(images, clean, noisy, *attack, self.seed)
        train, val = split_rows(len(noisy), self.val_fraction, self.seed)
        self.noisy_targets, self.poisoned = noisy[train], poisoned[train]
        self.clean_targets = None if clean is None else clean[train]
        self.realized_noise_rate = None if clean is None else noise_rate(clean[train], noisy[train])
        self._sampler = None
        self._train = self.training_dataset(images, train, self.noisy_targets, self.training_transform())
        self._scored = self.training_dataset(images, train, self.noisy_targets, self.evaluation_transform())
        self._validation = {}
        if len(val):
            kept = (images, noisy) if self.noisy_val else (original, known_labels_of(clean, name))
            self._validation["val"] = self.evaluation_dataset(kept[0], val, kept[1][val])
        if "val" in others:
            check_argument(self.val_fraction == 0, "val_fraction", "0 beside a validation set", self.val_fraction)
        for split, other in others.items():
            assert other.labels is not None
            self._validation[split] = self.evaluation_dataset(other, torch.arange(len(other.labels)), other.labels)
        if self.backdoor is not None:
            attacked = attacked_test_set(others.get("test"), self.backdoor, self.pixel_range, self.evaluation_dataset)
            self._validation["backdoor"] = attacked
        self.check_splits(stage)
        if stage == "fit":
            self._write_evidence(original, images, train)

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        return ResumableLoader(self._train, sampler=self.sampler, **self._loader_options(self._train))

    def _write_evidence(self, original: LabeledImages, images: LabeledImages, train: Tensor) -> None:
        """Into the run's folder, of the training set as it came and as it is, and the positions (N,) of its split."""
        trainer = self.trainer
        folder = None if trainer is None else run_folder(trainer)
        if trainer is None or folder is None or not trainer.is_global_zero:
            return
        clean, noisy, made = self.clean_targets, self.noisy_targets, (self.noise, self.seed, self.num_clean_classes)
        poisoned = None if self.backdoor is None else self.poisoned
        origins = origin_arrays(self.class_names, self.sources)
        manifest = build_manifest(clean, noisy, self.num_classes, *made, self.backdoor, poisoned, self.class_names)
        write_manifest(folder, manifest, noisy, clean, poisoned, origins)
        show_transitions(trainer, folder, manifest)
        if self.poisoned.any():
            show_backdoor(trainer, folder, original, images, train[self.poisoned], self.pixel_range)
