"""Cached features of any model, so that a robust head trains in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_noisy.data.array_file import Array, ArrayFile
from lightning_noisy.data.loader import SampleKey
from lightning_noisy.data.module import LabelledImages, NoisyDataModule, Transform
from lightning_noisy.data.noise import LabelNoise
from lightning_noisy.errors import check_argument, check_count
from lightning_noisy.functional.noise import check_num_classes

_NAMES = ("x", "y", "clean", "x_test", "y_test")
_CHUNK = 2**16  # rows held in float64 at once


class FeaturesDataModule(NoisyDataModule):
    """Features (N, D) that a model has computed once, with labels: a head on them trains in seconds on a CPU.

    The file is an ``.npz``, a ``.pt`` (a dict of tensors) or, for features alone, an ``.npy``. It holds ``x``, numbers
    (N, D), and ``y``, integer labels (N,). All of it is kept in memory, as float32; batches are gathered at once.

    What ``y`` means depends on what stands beside it. With ``noise``, ``y`` are clean labels, which the noise turns
    into those of the run; ``FileNoise`` brings human ones. With an array ``clean`` (N,) in the file, ``y`` are noisy
    already, and the clean labels are known. With neither, ``y`` are the labels of the run and nobody knows which are
    right: ``clean_targets`` and ``realised_noise_rate`` are None.

    The test set is one of three: ``x_test`` (M, D) and ``y_test`` (M,) in the file, the last ``test_rows`` rows, or a
    second file. Without any, the run has none: ``val_fraction`` gives it something to be validated on. Labels of the
    test set count as clean; of the last rows they are ``clean`` where the file has it, else ``y``.

    Args:
        path: The file.
        noise: Label noise; None keeps ``y``.
        batch_size: Batch size B of one process.
        num_workers: Worker processes of each loader; 0 is fastest.
        val_fraction: Share of the training set that becomes the validation split, in [0, 1).
        noisy_val: Whether the validation split keeps its noisy labels.
        seed: Seed of noise, split and order; None takes the run's (``seed_everything``), else 0.
        pin_memory: As in ``DataLoader``.
        labels: Another file whose labels stand for ``y``; needed with an ``.npy`` of features.
        labels_key: Name of the array inside ``labels``; may be left out where there is only one.
        test_path: An ``.npz`` or ``.pt`` file whose ``x`` and ``y`` are the test set.
        test_rows: How many rows at the end of ``path`` are the test set; the rows before are the training set.
        num_classes: Number of classes K, at least 2; None takes the largest label in the files, plus 1.
        standardize: Whether each feature is brought to mean 0 and standard deviation 1 over the training set (its
            validation split included); a constant one only to 0. The test set is treated with the same two numbers.

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
        batch_size: int = 128,
        num_workers: int = 0,
        val_fraction: float = 0.0,
        noisy_val: bool = True,
        seed: int | None = None,
        pin_memory: bool = False,
        labels: str | Path | None = None,
        labels_key: str | None = None,
        test_path: str | Path | None = None,
        test_rows: int | None = None,
        num_classes: int | None = None,
        standardize: bool = True,
    ) -> None:
        super().__init__(noise, batch_size, num_workers, val_fraction, noisy_val, seed, pin_memory)
        self.path = _checked(path, "path", (".npz", ".pt", ".npy"))
        self.labels = None if labels is None else _checked(labels, "labels", (".npz", ".pt", ".npy"))
        self.test_path = None if test_path is None else _checked(test_path, "test_path", (".npz", ".pt"))
        if self.path.lower().endswith(".npy"):
            check_argument(labels is not None, "labels", "the file of the labels, as a .npy `path` holds none", labels)
        check_argument(labels is not None or labels_key is None, "labels_key", "None without `labels`", labels_key)
        check_count(test_rows, "test_rows", optional=True)
        check_argument(test_rows is None or test_path is None, "test_rows", "None beside `test_path`", test_rows)
        self.labels_key = labels_key
        self.test_rows = test_rows
        self.standardize = standardize
        self._given_classes = num_classes
        if num_classes is not None:
            check_num_classes(num_classes)
            self.num_classes = num_classes
        self._training_part: _Part
        self._test_part: _Part | None
        self._transform: Transform

    @override
    def setup(self, stage: str) -> None:
        train, test = self._read()
        if self._given_classes is None:
            known = [train.y, train.clean, None if test is None else test.y]
            self.num_classes = 1 + max(int(labels.max()) for labels in known if labels is not None)
            check_num_classes(self.num_classes)
        self._training_part, self._test_part = train, test
        self._transform = _Standardize.of(train.x) if self.standardize else nn.Identity()
        super().setup(stage)

    @override
    def training_images(self) -> LabelledImages:
        x, y, clean = self._training_part.x, self._training_part.y, self._training_part.clean
        if clean is None and self.noise is not None:
            return LabelledImages(x.__getitem__, y)
        return LabelledImages(x.__getitem__, clean, y)

    @override
    def test_images(self) -> LabelledImages | None:
        part = self._test_part
        return None if part is None else LabelledImages(part.x.__getitem__, part.y)

    @override
    def training_transform(self) -> Transform:
        return self._transform

    @override
    def evaluation_transform(self) -> Transform:
        return self._transform

    @override
    def training_dataset(self, images: LabelledImages, rows: Tensor, targets: Tensor) -> Dataset[Any]:
        return RowsDataset(images.image, rows, targets, self.training_transform(), indexed=True)

    @override
    def evaluation_dataset(self, images: LabelledImages, rows: Tensor, targets: Tensor) -> Dataset[Any]:
        return RowsDataset(images.image, rows, targets, self.evaluation_transform(), indexed=False)

    @override
    def _loader_options(self) -> dict[str, Any]:
        return {**super()._loader_options(), "collate_fn": _columns}

    def _read(self) -> tuple[_Part, _Part | None]:
        """Training and test part."""
        file = _FeatureFile(self.path, "path", self._given_classes)
        whole = self._whole(file)
        samples, width = whole.x.shape
        if {"x_test", "y_test"} & set(file.names):
            other = self.test_path or self.test_rows
            if other is not None:
                raise file.error(
                    "no test set beside `test_path` or `test_rows`", f"one, and {other!r}", "leave out the argument"
                )
            return whole, file.part("x_test", "y_test", width)
        if self.test_path is not None:
            return whole, _FeatureFile(self.test_path, "test_path", self._given_classes).part("x", "y", width)
        if self.test_rows is None:
            return whole, None
        check_argument(self.test_rows < samples, "test_rows", f"less than all {samples} rows", self.test_rows)
        return whole.split(self.test_rows)

    def _whole(self, file: _FeatureFile) -> _Part:
        """All rows of ``x``."""
        x = file.matrix("x")
        if self.labels is None:
            y = file.vector("y", len(x), "x")
        else:
            other = ArrayFile(self.labels, "labels", "labels_key")
            y = other.labels(other.pick(self.labels_key), len(x), self._given_classes, of="row of `x`")
        return _Part(x, y, file.vector("clean", len(x), "x") if "clean" in file.names else None)


class RowsDataset(Dataset[Any]):
    """Rows of features with given labels, taken a batch at a time: ``(features, target, index)`` or without the index.

    ``DataLoader`` asks for the keys of a batch at once and gets a :class:`RowsBatch`.

    Args:
        features: ``features(rows)`` gives rows (B, D) for positions int64 (B,).
        rows: The positions that belong to the data set, int64 (N,).
        targets: Their labels, int64 (N,).
        transform: From what ``features`` gives to a tensor (B, D), row by row.
        indexed: Whether samples carry their index in [0, N).
    """

    def __init__(
        self, features: Callable[[Any], Any], rows: Tensor, targets: Tensor, transform: Transform, indexed: bool
    ) -> None:
        self.features = features
        self.rows = rows
        self.targets = targets
        self.transform = transform
        self.indexed = indexed

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: SampleKey | int) -> tuple[Tensor, ...]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[SampleKey | int]) -> RowsBatch:
        """The samples of many keys."""
        index = torch.tensor([key[1] if isinstance(key, tuple) else key for key in keys])
        columns = self.transform(self.features(self.rows[index])), self.targets[index]
        return RowsBatch((*columns, index) if self.indexed else columns)


class RowsBatch(Sequence[Any]):
    """The samples of a batch, kept as the columns that the batch consists of: nothing is left to be collated.

    It is a sequence of samples as well, for a ``Subset`` or for loaders with torch's own ``collate_fn``.

    Args:
        columns: Tensors of B rows each.
    """

    def __init__(self, columns: tuple[Tensor, ...]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, position: Any) -> tuple[Tensor, ...]:
        return tuple(column[position] for column in self.columns)


def _columns(batch: RowsBatch) -> list[Tensor]:
    return list(batch.columns)


def _checked(path: str | Path, name: str, suffixes: tuple[str, ...]) -> str:
    check_argument(Path(path).suffix.lower() in suffixes, name, f"a {' or '.join(suffixes)} file", str(path))
    return str(path)


@dataclass(frozen=True)
class _Part:
    """Features float32 (N, D) with labels and, where known, clean labels, int64 (N,)."""

    x: Tensor
    y: Tensor
    clean: Tensor | None = None

    def split(self, test_rows: int) -> tuple[_Part, _Part]:
        """The rows before the last ``test_rows``, and these with the best labels that are known."""
        best = self.y if self.clean is None else self.clean
        clean = None if self.clean is None else self.clean[:-test_rows]
        return _Part(self.x[:-test_rows], self.y[:-test_rows], clean), _Part(self.x[-test_rows:], best[-test_rows:])


class _FeatureFile(ArrayFile):
    """The arrays of a file of features, checked one by one."""

    def __init__(self, path: str, argument: str, num_classes: int | None) -> None:
        super().__init__(path, argument)
        self.num_classes = num_classes
        with self.open("features") as arrays:
            self.names = [name or "x" for name in arrays]  # that of an .npy file has none
            self.arrays = {name or "x": arrays[name] for name in arrays if name in (None, *_NAMES)}

    def part(self, x: str, y: str, width: int) -> _Part:
        """Features of ``width`` and their labels."""
        features = self.matrix(x, width)
        return _Part(features, self.vector(y, len(features), x))

    def matrix(self, name: str, width: int | None = None) -> Tensor:
        """Finite features, float32 (N, D)."""
        array = self._array(name)
        if array.ndim != 2 or array.size == 0 or array.shape[1] != (width or array.shape[1]):
            wanted = f"features `{name}` of shape (N, {width or 'D'})"
            raise self.error(wanted, f"shape {array.shape}", "save one row per sample, none of them empty")
        if array.dtype.kind not in "fiu":
            raise self.error(f"numbers in `{name}`", f"dtype {array.dtype}", "save features as floats")
        with np.errstate(over="ignore"):
            x = torch.from_numpy(array.astype(np.float32, order="C", copy=False))
        broken = ~x.isfinite()
        if broken.any():
            count, first = int(broken.sum()), int(broken.any(dim=1).nonzero()[0])
            came = f"{count} that are not, the first in row {first}"
            raise self.error(f"features `{name}` that are finite in float32", came, "mend or drop these rows")
        return x

    def vector(self, name: str, count: int, of: str) -> Tensor:
        """Labels, int64 (N,), one for each row of ``of``."""
        return self.labels(self._array(name), count, self.num_classes, f"labels `{name}`", f"row of `{of}`")

    def _array(self, name: str) -> Array:
        if name not in self.arrays:
            came = ", ".join(f"`{known}`" for known in self.names) or "no array"
            raise self.error(f"an array `{name}`", came, "save it under this name")
        return self.arrays[name]


@dataclass(frozen=True)
class _Standardize:
    """Subtracts ``mean`` (D,) from features (B, D) and divides by ``scale`` (D,)."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor) -> _Standardize:
        """From the columns of x (N, D), in float64."""
        chunks = [x[start : start + _CHUNK] for start in range(0, len(x), _CHUNK)]
        mean = torch.stack([chunk.double().sum(dim=0) for chunk in chunks]).sum(dim=0) / len(x)
        squares = torch.stack([(chunk.double() - mean).square().sum(dim=0) for chunk in chunks]).sum(dim=0)
        std = (squares / len(x)).sqrt().float()
        return cls(mean.float(), torch.where(std >= torch.finfo(std.dtype).tiny, std, 1.0))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
