"""Cached features of any model, so that a robust head trains in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_noisy.data.array_file import ArrayFile
from lightning_noisy.data.batch_transforms import BatchTransform, Compose, Draws, Unchanged
from lightning_noisy.data.embedded_photos import EmbeddedPhoto
from lightning_noisy.data.feature_file import FeatureFile, Part, checked_suffix
from lightning_noisy.data.feature_noise import FeatureNoise
from lightning_noisy.data.labeled_images import LabeledImages
from lightning_noisy.data.module import NoisyDataModule
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.data.on_device import DeviceCopies
from lightning_noisy.data.views import View, check_views, named_views
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.functional.noise import MOST_CLASSES, check_num_classes

Scaling = Literal["columns", "overall"]
"""Whether each feature has a scale of its own, or all have the same."""

_CHUNK = 2**16  # rows held in float64 at once
_FEW, _MOST = 4, 0.8  # columns from which on one may not have more than this share of the variance unsaid


class FeaturesDataModule(NoisyDataModule):
    """Features (N, D) that a model has computed once, with labels: a head on them trains in seconds on a CPU.

    The file is an ``.npz``, a ``.pt`` (a dict of tensors) or, for features alone, an ``.npy``. It holds ``x``, numbers
    (N, D), and ``y``, integer labels (N,). All of it is kept in memory, as float32; batches are gathered at once.

    What ``y`` means depends on what stands beside it. With ``noise``, ``y`` are clean labels, which the noise turns
    into those of the run; ``FileNoise`` brings human ones. With an array ``clean`` (N,) in the file, ``y`` are noisy
    already, and the clean labels are known. With neither, ``y`` are the labels of the run and nobody knows which are
    right: ``clean_targets`` and ``realized_noise_rate`` are None.

    Beside them the file may say which sample is which: ``path``, text (N,), or ``row``, integers (N,), and
    ``class_names``, text (K,). Files that a run writes have them; without them samples are told by their rows.

    The test set is one of three: ``x_test`` (M, D) and ``y_test`` (M,) in the file, the last ``test_rows`` rows, or a
    second file. Without any, the run has none: ``val_fraction`` gives it something to be validated on. Labels of the
    test set count as clean; of the last rows they are ``clean`` where the file has it, else ``y``.

    Args:
        path: The file.
        noise: Label noise; None keeps ``y``.
        labels: Another file whose labels stand for ``y``; needed with an ``.npy`` of features.
        labels_key: Name of the array inside ``labels``; may be left out where there is only one.
        test_path: An ``.npz`` or ``.pt`` file whose ``x`` and ``y`` are the test set.
        test_rows: How many rows at the end of ``path`` are the test set; the rows before are the training set.
        num_classes: Number of classes K, at least 2; None takes the largest label in the files, plus 1.
        standardize: How features are brought to mean 0 and standard deviation 1 over the training set (its validation
            split included); the test set is treated with the same numbers. ``"columns"``: each feature on its own, a
            constant one only to 0. ``"overall"``: all are divided by the root of their mean variance, so that what
            varies little goes on doing so; for embeddings and principal components. None leaves them as they are.
        views: What the features of a training sample become: a tensor for one view, a list for several, e.g.
            ``["weak", "strong"]``. Each has noise of its own.
        noise_std: Standard deviation of the normal noise that each view adds, after standardization.
        strong_dropout: Probability with which a strong view sets a feature to zero besides, in [0, 1).
        **options: Further arguments are those of :class:`~lightning_noisy.data.NoisyDataModule`; no worker is fastest.

    Raises:
        NoisyLabelError: An argument outside its range, or two test sets; at ``setup``, a file that is missing, cannot
            be read or lacks an array; features that are not finite or no (N, D); labels that are no integers, of
            another number, or outside [0, K).

    Example::

        data = FeaturesDataModule("cifar10_embeddings.npz", FileNoise("cifar10n.npz", "worse"), test_rows=10_000)
        NoisyLabelModule(MLP(192), LinearHead, GeneralizedCrossEntropy(), num_classes=10)
    """

    def __init__(
        self,
        path: str | Path,
        noise: LabelNoise | None = None,
        labels: str | Path | None = None,
        labels_key: str | None = None,
        test_path: str | Path | None = None,
        test_rows: int | None = None,
        num_classes: int | None = None,
        standardize: Scaling | None = "columns",
        views: Sequence[View] = ("weak",),
        noise_std: float = 0.0,
        strong_dropout: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(noise, **options)
        self.path = checked_suffix(path, "path", (".npz", ".pt", ".npy"))
        self.labels = None if labels is None else checked_suffix(labels, "labels", (".npz", ".pt", ".npy"))
        self.test_path = None if test_path is None else checked_suffix(test_path, "test_path", (".npz", ".pt"))
        if self.path.lower().endswith(".npy"):
            check_argument(labels is not None, "labels", "the file of the labels, as a .npy `path` holds none", labels)
        check_argument(labels is not None or labels_key is None, "labels_key", "None without `labels`", labels_key)
        check_count(test_rows, "test_rows", optional=True)
        check_argument(test_rows is None or test_path is None, "test_rows", "None beside `test_path`", test_rows)
        self.labels_key = labels_key
        self.test_rows = test_rows
        check_views(views)
        check_argument(noise_std >= 0, "noise_std", "a float >= 0", noise_std)
        check_argument(0 <= strong_dropout < 1, "strong_dropout", "a float in [0, 1)", strong_dropout)
        check_argument(
            standardize in (None, *get_args(Scaling)), "standardize", "'columns', 'overall' or None", standardize
        )
        self.standardize = standardize
        self.views = tuple(views)
        self._weak, self._strong = FeatureNoise(noise_std), FeatureNoise(noise_std, strong_dropout)
        self.largest_label: str | None = None
        """What the number of classes was taken from, with its place; from ``setup`` on."""
        self._given_classes = num_classes
        if num_classes is not None:
            check_num_classes(num_classes)
            self.num_classes = num_classes
        self._training_part: Part
        self._test_part: Part | None
        self._transform: BatchTransform

    @override
    def setup(self, stage: str) -> None:
        train, test = self._read()
        if self._given_classes is None:
            parts = {"`y`": train.y, "`clean`": train.clean, "the test set": None if test is None else test.y}
            known = [(int(labels.max()), name, labels) for name, labels in parts.items() if labels is not None]
            largest, name, labels = max(known, key=lambda one: one[0])
            self.largest_label = f"the label {largest} at position {int(labels.argmax())} of {name}"
            if largest >= MOST_CLASSES:
                raise NoisyLabelError(f"Expected labels that count classes, but got {self.largest_label}: mend it.")
            self.num_classes = max(1 + largest, len(self.class_names or ()))
            check_num_classes(self.num_classes)
        check_argument(
            self.class_names is None or len(self.class_names) == self.num_classes,
            "num_classes",
            f"the number of `class_names` in '{self.path}'",
            self.num_classes,
        )
        self._training_part, self._test_part = train, test
        self._transform = self._scaling(train)
        super().setup(stage)

    @override
    def training_images(self) -> LabeledImages:
        x, y, clean = self._training_part.x, self._training_part.y, self._training_part.clean
        if clean is None and self.noise is not None:
            return LabeledImages.in_memory(x, y, sources=self._training_part.sources)
        return LabeledImages.in_memory(x, clean, y, self._training_part.sources)

    @override
    def test_images(self) -> LabeledImages | None:
        part = self._test_part
        return None if part is None else LabeledImages.in_memory(part.x, part.y, sources=part.sources)

    @override
    def training_transform(self) -> BatchTransform:
        weak, strong = (Compose([self._transform, noise]) for noise in (self._weak, self._strong))
        return named_views(self.views, weak, strong)

    @override
    def evaluation_transform(self) -> BatchTransform:
        return self._transform

    @override
    def photo_transform(self) -> Callable[[Any], Tensor]:
        """From a PIL image to its features by the network that made those of ``path``, scaled as these.

        Raises:
            NoisyLabelError: The file does not say which network that was, or it cannot be had.
        """
        made_by = FeatureFile(self.path, "path", self._given_classes).network()
        return super().photo_transform() if made_by is None else EmbeddedPhoto(*made_by, self._scaling(self._read()[0]))

    def _scaling(self, train: Part) -> BatchTransform:
        return Unchanged() if self.standardize is None else _Standardize.of(train.x, self.standardize)

    def _read(self) -> tuple[Part, Part | None]:
        """Training and test part."""
        file = FeatureFile(self.path, "path", self._given_classes)
        whole, self.class_names = self._whole(file), file.class_names()
        samples, width = whole.x.shape
        if {"x_test", "y_test"} & set(file.names):
            other = self.test_path or self.test_rows
            if other is not None:
                raise file.error(
                    "no test set beside `test_path` or `test_rows`", f"one, and {other!r}", "leave out the argument"
                )
            return whole, file.part("x_test", "y_test", width, "path_test")
        if self.test_path is not None:
            return whole, FeatureFile(self.test_path, "test_path", self._given_classes).part("x", "y", width)
        if self.test_rows is None:
            return whole, None
        check_argument(self.test_rows < samples, "test_rows", f"less than all {samples} rows", self.test_rows)
        return whole.split(self.test_rows)

    def _whole(self, file: FeatureFile) -> Part:
        """All rows of ``x``."""
        x = file.matrix("x")
        if self.labels is None:
            y = file.vector("y", len(x), "x")
        else:
            other = ArrayFile(self.labels, "labels", "labels_key")
            y = other.labels(other.pick(self.labels_key), len(x), self._given_classes, of="row of `x`")
        clean = file.vector("clean", len(x), "x") if "clean" in file.names else None
        return Part(x, y, clean, file.sources(len(x)))


@dataclass(frozen=True)
class _Standardize(BatchTransform):
    """Subtracts ``mean`` (D,) from features (B, D) and divides by ``scale`` (D,)."""

    mean: DeviceCopies
    scale: DeviceCopies

    @classmethod
    def of(cls, x: Tensor, scaling: Scaling) -> _Standardize:
        """From x (N, D), in float64."""
        chunks = [x[start : start + _CHUNK] for start in range(0, len(x), _CHUNK)]
        mean = torch.stack([chunk.double().sum(dim=0) for chunk in chunks]).sum(dim=0) / len(x)
        squares = torch.stack([(chunk.double() - mean).square().sum(dim=0) for chunk in chunks]).sum(dim=0)
        if scaling == "overall":
            _say_what_drowns_the_rest(squares)
            squares = squares.mean().expand_as(squares)
        std = (squares / len(x)).sqrt().float()
        scale = torch.where(std >= torch.finfo(std.dtype).tiny, std, 1.0)
        return cls(DeviceCopies(mean.float()), DeviceCopies(scale))

    def __call__(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        return (images - self.mean.on(images.device)) / self.scale.on(images.device)


def _say_what_drowns_the_rest(variances: Tensor) -> None:
    """A line where one feature (of D) has most of the variance, and scaling all alike leaves nothing of the others."""
    share = float(variances.max() / variances.sum().clamp(min=torch.finfo(variances.dtype).tiny))
    if len(variances) >= _FEW and share > _MOST:
        rank_zero_warn(
            f"Column {int(variances.argmax())} of the features has {share:.0%} of their variance, so a network sees "
            "hardly anything else: if the columns are in different units, use standardize='columns'."
        )
