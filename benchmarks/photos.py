"""A folder of 2,000 photos with 23 % wrong labels, from the folder to the report, in one command.

    python -m benchmarks.photos --cifar data

The first 2,000 images of CIFAR-10, as JPEG files of 128 pixels in a folder for each class. 24.5 % of the labels are
drawn at random, and a tenth of these are right again. ``lightning-noisy audit`` is run as a user would, and what it
says is held to the true classes: on the folder, on a table of the same files, on the folder with ``--from_scratch`` and
with ``--finetune``. The last takes long without an accelerator. ``--runs`` names some; the record keeps the others.

It shows one kind of noise, one seed, and images that are small. It does not show labels that people mix up.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torchvision.datasets import CIFAR10

from benchmarks.record import RESULTS, describe_machine, read_record, write_record

_COUNT, _NOISE, _SIDE, _FIRST = 2000, 0.245, 128, 48
RUNS: dict[str, tuple[str, ...]] = {
    "photos": ("photos",),
    "table": ("labels.csv",),
    "from scratch": ("photos", "--from_scratch"),
    "finetune": ("photos", "--finetune"),
}
"""What ``audit`` is given in each."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the folder, audit it in each way, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--count", type=int, default=_COUNT, help="images (%(default)s)")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS, metavar="RUN")
    parser.add_argument("--results", type=Path, default=RESULTS / "photos.json")
    given = parser.parse_args(arguments)
    record = read_record(given.results) or {"images": given.count, "runs": {}}
    if record["images"] != given.count:
        parser.error(f"the record has {record['images']} images: give another file as --results")
    with tempfile.TemporaryDirectory() as folder:
        truth = make_folder(Path(folder, "photos"), CIFAR10(given.cifar), given.count)
        make_table(Path(folder, "labels.csv"), truth)
        for name in given.runs:
            record["runs"][name] = {**audited(name, Path(folder), truth), "machine": describe_machine()}
            write_record(given.results, record)
    print(record["runs"])


def make_folder(root: Path, data: Any, count: int) -> dict[str, str]:
    """Write the images; returns the true class of each path, ``<given class>/<file>``.

    Args:
        root: The folder.
        data: ``data`` (N, H, W, 3) bytes, ``targets``, and ``classes``, as torchvision's CIFAR10 has them.
        count: How many images.
    """
    rng = np.random.default_rng(0)
    truth = {}
    for number in range(count):
        label = data.targets[number]
        given = int(rng.integers(len(data.classes))) if rng.random() < _NOISE else label
        path = Path(data.classes[given], f"{number:05d}.jpg")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(data.data[number]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        image.save(root / path, quality=92)
        truth[path.as_posix()] = data.classes[label]
    return truth


def make_table(path: Path, truth: dict[str, str]) -> Path:
    """The same files as a table beside their folder."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label"])
        writer.writerows((f"photos/{name}", name.partition("/")[0]) for name in truth)
    return path


def audited(run: str, folder: Path, truth: dict[str, str]) -> dict[str, Any]:
    """Run the command, and hold what it says to the true classes."""
    output = f"audit of {run}"
    began = time.perf_counter()
    command = [sys.executable, "-m", "lightning_noisy", "audit", *RUNS[run], "--output", output]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    found = folder / output / "label_issues" / "label_issues.csv"
    with found.open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = [truth[row["path"].removeprefix("photos/")] for row in rows]
    wrong = np.array([row["given"] != name for row, name in zip(rows, right, strict=True)])
    called = np.array(["wrong" in row["flags"] for row in rows])
    suggested = np.array([row["suggested"] == name for row, name in zip(rows, right, strict=True)])
    score = np.array([float(row["score"]) for row in rows])
    return {
        "seconds": round(seconds, 1),
        "wrong": float(wrong.mean()),
        "called_wrong": float(called.mean()),
        "precision": float(wrong[called].mean()),
        "recall": float(called[wrong].mean()),
        "auroc": float(roc_auc_score(wrong, score)),
        "average_precision": float(average_precision_score(wrong, score)),
        f"wrong_of_first_{_FIRST}": int(wrong[:_FIRST].sum()),
        "suggestions_right": float(suggested[wrong].mean()),
    }


if __name__ == "__main__":
    main()
