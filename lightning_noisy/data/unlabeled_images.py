"""Image files without labels, to be predicted."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_noisy.data.image_datasets import EvaluationDataset
from lightning_noisy.data.image_files import files_below
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_problems import ImageProblems
from lightning_noisy.data.table_layout import TABLES, opened_table, table_layout
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.trainer_access import run_folder


class UnlabeledImages(LightningDataModule):
    """Image files to be predicted: a folder, nested or flat, a table of paths, or one file.

    All are decoded once at ``setup``; those that cannot be are left out, and named in :attr:`skipped` and in
    ``predictions.skipped_images.csv`` in the run's folder. Images are read by
    :func:`~lightning_noisy.data.photos.read_photo`.

    Args:
        images: A folder, whose image files count at any depth; a ``.csv`` or ``.tsv`` table with a header, whose paths
            are relative to its folder; or an image file.
        transform: From a PIL image in RGB to a tensor (C, H, W), without augmentation.
        image_column: Column of the paths; None takes the only column, or the first with a usual name (``image``,
            ``path``, ``file``, ``filename`` and alike).
        batch_size: Batch size B of one process.
        num_workers: Worker processes of the loader.

    Raises:
        NoisyLabelError: At ``setup``, nothing there, no image among it, or none that can be read.

    Example::

        Trainer(callbacks=[PredictionWriter()]).predict(module, UnlabeledImages("new", data.photo_transform()))
    """

    def __init__(
        self,
        images: str | Path,
        transform: Callable[[Any], Tensor],
        image_column: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_count(batch_size, "batch_size")
        check_count(num_workers, "num_workers", least=0, most=1024)
        self.images = str(images)
        self.transform = transform
        self.image_column = image_column
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.skipped: dict[str, str] = {}
        """Path -> reason of each image that cannot be read; from ``setup`` on."""
        self._readable: ImageList

    @override
    def setup(self, stage: str) -> None:
        images = list_images(self.images, self.image_column)
        bad = images.unreadable(max(1, self.num_workers))
        self.skipped = {os.fsdecode(images.paths[index]): why for index, why in bad.items()}
        if len(bad) == len(images):
            first, why = next(iter(bad.items()))
            raise NoisyLabelError(
                f"None of the {len(images)} images can be read, the first {images.name(first)}: {why}."
            )
        kept = torch.tensor([index for index in range(len(images)) if index not in bad], dtype=torch.int64)
        self._readable = images.take(kept)
        problems = ImageProblems()
        problems.note_skipped("predict", images, bad)
        folder = None if self.trainer is None else run_folder(self.trainer)
        if folder is not None and self.trainer.is_global_zero:  # type: ignore[union-attr]
            problems.write(Path(folder), "predictions.")

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        images = self._readable
        dataset = EvaluationDataset(images.__getitem__, images.labels, self.transform, images.sources)
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers)


def list_images(images: str | Path, image_column: str | None = None) -> ImageList:
    """Image files without labels, all -1; arguments as for :class:`UnlabeledImages`.

    Raises:
        NoisyLabelError: There are none.
    """
    path = Path(images).expanduser()
    wanted = "an image, a folder of images, or a CSV table of paths, relative to the working directory"
    check_argument(path.exists(), "images", wanted, str(images))
    if path.is_dir():
        root, files, rows = path, files_below(path, Path()), None
    elif path.suffix.lower() in TABLES:
        root, (files, rows) = path.parent, _column(path, image_column)
    else:
        root, files, rows = path.parent, [path.name], None
    check_argument(bool(files), "images", f"{wanted}, not without any image", str(images))
    return ImageList.of(root, files, [-1] * len(files), path if rows else None, rows)


def _column(table: Path, name: str | None) -> tuple[list[str], Sequence[int]]:
    """The paths in a table, and the lines where their rows end."""
    layout = table_layout(table, name)
    column = layout.image_column
    with opened_table(table) as file:
        reader = csv.DictReader(file, delimiter=layout.delimiter, strict=True)
        found = [(row[column] or "", reader.line_num) for row in reader]
    empty = next((line for path, line in found if not path.strip()), None)
    if empty is not None:
        raise NoisyLabelError(f"Row {empty} of '{table}' has nothing in column '{column}'.")
    return [path.strip() for path, _ in found], [line for _, line in found]
