"""The first 48 suspects of ``lightning-noisy audit`` among CIFAR-10's images with people's labels, to look at.

    python -m benchmarks.suspects --features cifar10_embeddings.npz --labels cifar10n.npz --cifar data

Features, labels and network are those of "audit" in ``benchmarks.detection``. The picture shows each image with the
label that people gave and the one that is suggested; the record says how many were wrong, by the labels of the
data set. One kind of noise, one seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10

from benchmarks.detection_methods import AUDIT, Detector, watched
from benchmarks.method_list import Settings
from benchmarks.record import RESULTS, describe_machine, write_picture, write_record

_FIRST, _COLUMNS = 48, 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, rank, and write the picture and its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True, help="npz with x (N, D) and y (N,), rows as in CIFAR-10")
    parser.add_argument("--labels", required=True, help="npz with the labels that people gave")
    parser.add_argument("--cifar", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--noise", default="worse", help="name of the labels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS / "suspects.json")
    given = parser.parse_args(arguments)
    detector = Detector(given.features, given.labels, Settings(), given.noise, given.seed)
    show(detector, CIFAR10(given.cifar), given.results)


def show(detector: Detector, images: Any, results: Path) -> None:
    """Rank the labels, and write the picture and its record.

    Args:
        detector: Trains.
        images: ``data`` (N, H, W, 3) bytes, ``targets``, and ``classes``, as torchvision's CIFAR10 has them.
        results: The record; the picture stands beside it.

    Raises:
        ValueError: The images are others than those of the features.
    """
    data, issues = detector.data(), watched(detector, AUDIT)[0].issues()
    assert data.clean_targets is not None
    truth, rows = data.clean_targets.numpy(), issues.order[:_FIRST]
    if not np.array_equal(truth, images.targets):
        raise ValueError("The features have other labels than the images: give those of one data set, in one order.")
    wrong = issues.given != truth
    record = {
        "machine": describe_machine(),
        "noise": detector.noise,
        "seed": detector.seed,
        "first": len(rows),
        "wrong": int(wrong[rows].sum()),
        "suggested is right": int((issues.suggested == truth)[rows].sum()),
        "rows": rows.tolist(),
    }
    titles = [f"{images.classes[issues.given[row]]} → {images.classes[issues.suggested[row]]}" for row in rows]
    write_record(results, record)
    write_picture(results, figure(images.data[rows], titles, wrong[rows]))
    print(record)


def figure(images: NDArray[np.uint8], titles: Sequence[str], wrong: NDArray[np.bool_]) -> Figure:
    """Images (N, H, W, 3) with a title each; that of a label that is right is red."""
    lines = -(-len(images) // _COLUMNS)
    drawn = Figure(figsize=(1.1 * _COLUMNS, 1.3 * lines), layout="constrained")
    for place, (image, title, suspected) in enumerate(zip(images, titles, wrong, strict=True), start=1):
        axes = drawn.add_subplot(lines, _COLUMNS, place)
        axes.imshow(image)
        axes.set_axis_off()
        axes.set_title(title, fontsize=6, color="black" if suspected else "red")
    return drawn


if __name__ == "__main__":
    main()
