"""Features of image files by a pretrained network, in a file that ``FeaturesDataModule`` reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from lightning_noisy.data.csv_images import CSVDataModule
from lightning_noisy.data.feature_file import NETWORK
from lightning_noisy.data.image_folder import ImageFolderDataModule
from lightning_noisy.data.image_list import ImageList
from lightning_noisy.data.image_problems import ImageProblems
from lightning_noisy.data.origins import checked_sources, origin_arrays
from lightning_noisy.data.table_layout import TABLES, integers_that_occur, table_layout
from lightning_noisy.data.unlabeled_images import list_images
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.files import Made, check_writable, written_aside
from lightning_noisy.networks.pretrained import Pretrained

_PART = 512  # images whose features are written at once


@dataclass(frozen=True)
class ImageSource:
    """Image files to be embedded.

    Args:
        lists: The images of "train" and, where there is one, "test".
        class_names: Names of the classes; None without labels.
    """

    lists: Mapping[str, ImageList]
    class_names: Sequence[str] | None


def find_images(path: str, image_column: str | None = None, label_column: str | None = None) -> ImageSource:
    """Images with their labels: a folder for each class, a CSV table, or a flat folder without labels.

    Args:
        path: A folder as :class:`~lightning_noisy.data.ImageFolderDataModule` takes it (of ``val`` nothing is read), a
            flat one, or a table as :class:`~lightning_noisy.data.CSVDataModule` takes it. Of a table's labels that are
            all integers, but not 0 to K - 1, those that occur are the classes.
        image_column: Column of the paths; None looks for one with a usual name.
        label_column: Column of the labels; None looks likewise, and without one there are no labels.

    Raises:
        NoisyLabelError: Nothing there, or no image in it.
    """
    place = Path(path).expanduser()
    check_argument(place.exists(), "path", "a folder of images or a CSV table, relative to the working directory", path)
    if place.suffix.lower() in TABLES and place.is_file():
        layout = table_layout(place, image_column, label_column)
        if layout.label_column is None:
            return ImageSource({"train": list_images(place, image_column)}, None)
        names = integers_that_occur(place, layout)
        columns = layout.image_column, layout.label_column
        data: Any = CSVDataModule(path, *columns, class_names=names, delimiter=layout.delimiter)
    elif place.is_dir() and any(one.is_dir() and not one.name.startswith(".") for one in place.iterdir()):
        data = ImageFolderDataModule(path)
    else:
        return ImageSource({"train": list_images(place)}, None)
    class_names, lists = data.read_lists()
    return ImageSource({split: lists[split] for split in ("train", "test") if split in lists}, class_names)


def embed_images(
    source: ImageSource, network: Pretrained, output: Path, batch_size: int = 64, num_workers: int = 0
) -> ImageProblems:
    """Write the features of images to a ``.npz`` file.

    It holds ``x``, float32 (N, D), ``path``, text (N,), ``network``, text (2,): what made them, and the file of its
    weights, empty for its own; and with labels ``y``, int64 (N,), and ``class_names``, text (K,); of a test set
    ``x_test``, ``y_test`` and ``path_test``. Images that cannot be read are left out. While it runs, parts are kept in
    ``<output>.parts``: started again, a run that was ended goes on behind the last of them.

    Args:
        source: The images.
        network: What embeds them, on an accelerator if there is one.
        output: The file.
        batch_size: Images in a batch.
        num_workers: Processes that decode images.

    Returns:
        What could not be read, and copies of one image with different labels.

    Raises:
        NoisyLabelError: The file cannot be written, or no image of a set can be read.
    """
    check_count(batch_size, "batch_size")
    check_count(num_workers, "num_workers", least=0, most=1024)
    check_argument(output.suffix == ".npz", "output", "the name of a .npz file", str(output))
    check_writable(output, "output")
    folder, problems = output.with_name(f"{output.name}.parts"), ImageProblems()
    arrays: dict[str, Any] = dict(origin_arrays(source.class_names, None))
    arrays[NETWORK] = np.array([network.name, network.weights or ""])
    made = Made(folder)
    _begin(folder, source, network)
    for split, images in source.lists.items():
        x, kept, bad = _features(images, network, folder / split, batch_size, num_workers)
        if len(kept) == 0:
            made.remove()
            first, why = next(iter(bad.items()))
            raise NoisyLabelError(
                f"None of the {len(images)} images can be read, the first {images.name(first)}: {why}."
            )
        problems.note_skipped(split, images, bad)
        known, end = images.take(torch.from_numpy(kept)), "" if split == "train" else f"_{split}"
        arrays |= {f"x{end}": x, f"path{end}": checked_sources(known.sources, len(known))}
        if source.class_names is not None:
            problems.note_copies(split, known, source.class_names)
            arrays[f"y{end}"] = known.labels.numpy()
    with written_aside(output) as file:
        np.savez(file, **arrays)
    shutil.rmtree(folder)
    return problems


def _begin(folder: Path, source: ImageSource, network: Pretrained) -> None:
    """Parts of the same images, unchanged, and of the same network stay; others go, with a line."""
    plan = folder / "plan.json"
    asked = json.dumps({"model": network.name, "images": _digest(source), "weights": _weights_digest(network)})
    if folder.exists() and (not plan.is_file() or plan.read_text() != asked):
        rank_zero_warn(f"'{folder}' holds parts of other images or another network, and is begun anew.")
        shutil.rmtree(folder)
    if not folder.exists():
        with written_aside(plan) as file:
            file.write(asked.encode())


def _digest(source: ImageSource) -> str:
    """Of paths, labels, sizes and times of all files."""
    digest = hashlib.sha256(repr(source.class_names).encode(errors="surrogateescape"))
    for images in source.lists.values():
        digest.update(images.labels.numpy().tobytes())
        for index in range(len(images)):
            path = images.path(index)
            state = Path(path).stat() if Path(path).is_file() else None
            digest.update(os.fsencode(path) + repr(state and (state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()


def _weights_digest(network: Pretrained) -> str:
    digest = hashlib.sha256(repr(network.transform).encode())
    for value in network.network.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def _features(
    images: ImageList, network: Pretrained, folder: Path, batch_size: int, num_workers: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[int, str]]:
    """Features (M, D) of the images that can be read, their positions (M,), and why others cannot."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = network.network.to(device).to(memory_format=torch.channels_last)  # twice as fast on a CPU
    starts = range(0, len(images), _PART)
    done = sum(min(_PART, len(images) - start) for start in starts if _part(folder, start).is_file())
    with tqdm(total=len(images), initial=done, desc="Embedding", unit="image") as bar:
        for start in starts:
            if not _part(folder, start).is_file():
                rows = range(start, min(start + _PART, len(images)))
                loader = DataLoader(
                    Subset(_Decoded(images, network.transform), rows),
                    batch_size=batch_size,
                    num_workers=num_workers,
                    collate_fn=_collate,
                )
                _embed_part(loader, model, device, _part(folder, start), bar)
    parts = [np.load(_part(folder, start), allow_pickle=False) for start in starts]
    bad = {int(index): str(why) for part in parts for index, why in zip(part["bad"], part["why"], strict=True)}
    kept = np.concatenate([part["kept"] for part in parts])
    found = [part["x"] for part in parts if len(part["kept"])]
    return np.concatenate(found) if found else np.empty((0, 0), np.float32), kept, bad


def _part(folder: Path, start: int) -> Path:
    return folder / f"{start:09}.npz"


@torch.inference_mode()
def _embed_part(loader: Any, model: torch.nn.Module, device: torch.device, path: Path, bar: Any) -> None:
    features: list[Tensor] = []
    kept: list[int] = []
    bad: dict[int, str] = {}
    for batch, positions, reasons in loader:
        if batch is not None:
            features.append(model(batch.to(device, memory_format=torch.channels_last)).float().cpu())
        kept += positions
        bad |= reasons
        bar.update(len(positions) + len(reasons))
    with written_aside(path) as file:
        np.savez(
            file,
            x=torch.cat(features).numpy() if features else np.empty((0, 0), np.float32),
            kept=np.array(kept, dtype=np.int64),
            bad=np.array(list(bad), dtype=np.int64),
            why=np.array(list(bad.values()), dtype=str),
        )


class _Decoded(Dataset[Any]):
    """Positions with the image there, or the reason why it cannot be read."""

    def __init__(self, images: ImageList, transform: Any) -> None:
        self.images = images
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        image = self.images.readable(index)
        return index, image if isinstance(image, str) else self.transform(image)


def _collate(samples: Sequence[tuple[int, Tensor | str]]) -> tuple[Tensor | None, list[int], dict[int, str]]:
    images = {index: image for index, image in samples if isinstance(image, Tensor)}
    reasons = {index: why for index, why in samples if isinstance(why, str)}
    return torch.stack(list(images.values())) if images else None, list(images), reasons
