"""Images per second of the CIFAR-10 training loader, in one process with one thread, beside what people use.

Run from a clone, on data in the layout of torchvision: ``OMP_NUM_THREADS=1 python -m benchmarks.loader --root data``.
The loaders take turns; each number is a median. What it does not show: workers, and the time that a network takes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
import torchvision
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from benchmarks.clock import wait
from benchmarks.record import RESULTS, describe_machine, write_record
from lightning_noisy.data import CIFAR10DataModule

BATCH, ROUNDS, BATCHES = 128, 9, 60
CPU = torch.device("cpu")
FEWER = {"strong views": 6}
"""Batches of a round where a batch takes long."""


def our_loader(root: str, *views: Any) -> DataLoader[Any]:
    """Crop, flip and normalization by this package."""
    data = CIFAR10DataModule(root, views=list(views), num_workers=0, batch_size=BATCH, seed=0)
    data.setup("fit")
    return data.train_dataloader()


def ordinary_loader(root: str) -> DataLoader[Any]:
    """What most projects write: torchvision, image by image."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalize = transforms.Normalize(CIFAR10DataModule.mean, CIFAR10DataModule.std)
    dataset = CIFAR10(root, transform=transforms.Compose([*steps, normalize]))
    return DataLoader(dataset, BATCH, shuffle=True)


class PlainBatches:
    """A crop and a flip by hand, all images of a batch drawn from one stream: what one would write without the package.

    Args:
        root: Folder with the data.
    """

    def __init__(self, root: str) -> None:
        dataset = CIFAR10(root)
        self.images = torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.as_tensor(dataset.targets)
        self.mean = 255 * torch.tensor(CIFAR10DataModule.mean).view(-1, 1, 1)
        self.std = 255 * torch.tensor(CIFAR10DataModule.std).view(-1, 1, 1)

    def __iter__(self) -> Iterable[tuple[Tensor, Tensor]]:  # type: ignore[override]
        for rows in torch.randperm(len(self.images)).split(BATCH):
            padded = F.pad(self.images[rows], [4] * 4)
            top, left = torch.randint(9, (2, len(rows), 1))
            y, x = (top + torch.arange(32))[:, None, :, None], (left + torch.arange(32))[:, None, None, :]
            batch = padded[torch.arange(len(rows))[:, None, None, None], torch.arange(3)[None, :, None, None], y, x]
            turned = torch.rand(len(rows)) < 0.5
            batch[turned] = batch[turned].flip(3)
            yield (batch.float() - self.mean) / self.std, self.labels[rows]


def seconds_per_image(loader: Iterable[Any], batches: int, device: torch.device = CPU) -> float:
    """The time of the first ``batches`` batches on a device, by their images; the very first is not counted."""
    iterator = iter(loader)
    move_data_to_device(next(iterator), device)
    wait(device)
    start = time.perf_counter()
    count = sum(len(move_data_to_device(batch, device)[1]) for batch in islice(iterator, batches))
    wait(device)
    return (time.perf_counter() - start) / count


def measure(root: str, rounds: int = ROUNDS, batches: int = BATCHES) -> dict[str, float]:
    """Median images per second of each loader, over rounds in which they take turns."""
    loaders: dict[str, Iterable[Any]] = {
        "ours": our_loader(root, "weak"),
        "ours, weak and strong views": our_loader(root, "weak", "strong"),
        "torchvision, image by image": ordinary_loader(root),
        "plain batches": PlainBatches(root),  # type: ignore[dict-item]
    }
    seen: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            few = next((count for part, count in FEWER.items() if part in name), batches)
            seen[name].append(seconds_per_image(loader, min(few, batches)))
    return {name: round(1 / statistics.median(times)) for name, times in seen.items()}


def run(measured: Callable[..., dict[str, float]] = measure) -> None:
    """Measure, record and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    speeds = measured(options.root, options.rounds)
    record = {
        "command": f"OMP_NUM_THREADS=1 python -m benchmarks.loader --root data --rounds {options.rounds}",
        "machine": {**describe_machine(), "torchvision": torchvision.__version__},
        "batch": BATCH,
        "rounds": options.rounds,
        "images per second": speeds,
    }
    write_record(RESULTS / "loader.json", record)
    for name, speed in speeds.items():
        print(f"{speed:>9,.0f} images/s  {name}")


if __name__ == "__main__":
    run()
