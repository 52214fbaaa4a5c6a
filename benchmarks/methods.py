"""Every loss and target method on cached features under three kinds of label noise.

    python -m benchmarks.methods --features cifar10_embeddings.npz --labels cifar10n.npz --jobs 2

Features of CIFAR-10 (N, D) from a network that was trained on ImageNet, the last 10,000 rows being the test set; labels
given by people (CIFAR-10N, ``aggre`` and ``worse``), and 60 % symmetric noise over the other classes. The features
enter as they are: of principal components the scale tells what matters. A hidden layer of width 512 with ReLU and a
linear head are trained for 20 epochs by SGD without weight decay, batch size 384, learning rate 0.1 falling as a cosine
to 0, momentum 0.9, gradients clipped at norm 5, the same for all methods.

Arguments are the published ones for CIFAR-10 (``losses.paper_setting``, else the papers' code). Those that count
epochs are brought to 20 epochs in proportion; nothing was tuned. The transition matrix of the corrections is estimated
from a first network, as published; a second row has the true one. Methods that need several views are left out.

Runs that the record holds are not done again, so a benchmark that was interrupted goes on where it stopped.

It shows what each method does on top of good features, with arguments that were chosen for training from images. It
does not show which is best once tuned, nor training from images. The best epoch is chosen by the test set, for
comparison with papers that do so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.compact import read_compact, write_compact
from benchmarks.grid import Run, fill, spread
from benchmarks.method_list import METHODS, Fitter, Settings
from benchmarks.record import RESULTS, commit, write_table
from lightning_noisy.files import written_aside

SYMMETRIC = "symmetric 0.6"
NOISES = ("aggre", "worse", SYMMETRIC)


def run(features: str, labels: str, settings: Settings, method: str, noise: str, seed: int) -> Run:
    """One method: clean test accuracy by epoch, of the network that it ends with."""
    began = time.perf_counter()
    seed_everything(seed, verbose=False)  # losses and callbacks with draws of their own take it
    record = METHODS[method](Fitter(features, labels, settings, noise, seed)).record()
    return {
        "method": method,
        "noise": noise,
        "seed": seed,
        **record,
        "agreement_with_labels": record["agreement_with_labels"][-1],
        "seconds": round(time.perf_counter() - began, 1),
        "commit": _commit(),
    }


def table(record: dict[str, Any]) -> str:
    """Means and standard deviations over the seeds, as Markdown."""
    curves = _curves(record)
    noises = [noise for noise in NOISES if any(noise == key[1] for key in curves)]
    columns = ["method", *(f"{noise}, {epoch}" for noise in noises for epoch in ("last", "best")), "seeds"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for method in (name for name in METHODS if any(name == key[0] for key in curves)):
        cells = [_cells(curves.get((method, noise), [])) for noise in noises]
        seeds = sorted({len(curves.get((method, noise), [])) for noise in noises})
        lines.append(f"| {method} | {' | '.join(cells)} | {' to '.join(map(str, seeds))} |")
    return "\n".join(lines) + "\n"


def figure(record: dict[str, Any]) -> Figure:
    """Mean accuracy of each method in its last and in its best epoch, a panel for each noise.

    Methods stand in the order of the mean of their last epochs over the noises, the highest on top; the highest of each
    panel is marked.
    """
    curves = _curves(record)
    noises = [noise for noise in NOISES if any(noise == key[1] for key in curves)]
    names = _sorted(curves, noises)
    drawn = Figure(figsize=(3.6 * len(noises) + 1.6, 0.19 * len(names) + 1.0), layout="constrained")
    panels = drawn.subplots(1, len(noises), sharey=True, squeeze=False)[0]
    for axes, noise in zip(panels, noises, strict=True):
        means = {method: _means(curves[method, noise]) for method in names if (method, noise) in curves}
        rows = [names.index(method) for method in means]
        last, best = zip(*means.values(), strict=True)
        axes.hlines(rows, last, best, color="0.75", linewidth=1.5, zorder=1)
        axes.scatter(best, rows, s=16, facecolor="white", edgecolor="tab:blue", label="best epoch")
        axes.scatter(last, rows, s=16, color="tab:blue", label="last epoch")
        if "CE" in means:
            axes.axvline(means["CE"][0], color="tab:red", linewidth=0.8, label="last epoch of CE")
        _mark_highest(axes, last, rows)
        axes.set_title(noise, fontsize=10)
        axes.set_xlabel("clean test accuracy, %")
        axes.grid(axis="x", linewidth=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=8)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    return drawn


def _sorted(curves: dict[tuple[str, str], list[list[float]]], noises: Sequence[str]) -> list[str]:
    """The methods, the highest mean of last epochs over the noises that each has first."""
    means = {
        method: statistics.fmean(_means(curves[method, noise])[0] for noise in noises if (method, noise) in curves)
        for method in METHODS
        if any((method, noise) in curves for noise in noises)
    }
    return sorted(means, key=lambda method: -means[method])


def _mark_highest(axes: Axes, last: Sequence[float], rows: Sequence[int]) -> None:
    """A star and its value on the highest last epoch."""
    place = max(range(len(last)), key=lambda number: last[number])
    axes.scatter(last[place], rows[place], s=110, marker="*", color="tab:orange", zorder=3, label="highest last epoch")
    where = {"xytext": (-8, 0), "textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 8}
    axes.annotate(f"{last[place]:.2f}", (last[place], rows[place]), **where)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs, print the table and write it beside the record, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True, help="npz: x (N, D), y (N,) clean, test set last")
    parser.add_argument("--labels", type=Path, required=True, help="npz with the labels of the training rows")
    parser.add_argument("--test-rows", type=int, default=Settings.test_rows)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--hidden", type=int, default=Settings.hidden)
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS / "methods.json")
    parser.add_argument("--picture", type=Path, help="default: beside the record")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = Settings(given.test_rows, given.epochs, given.batch_size, given.hidden, given.learning_rate)
    runs = {
        f"{method}, {noise}, {seed}": {"method": method, "noise": noise, "seed": seed}
        for seed in given.seeds
        for method in given.methods
        for noise in given.noises
    }
    one_run = partial(run, str(given.features), str(given.labels), settings)
    record = fill(given.results, settings, runs, one_run, given.jobs, read_compact, write_compact)
    rows = table(record)
    print(rows)
    write_table(given.results, rows)
    with written_aside(given.picture or given.results.with_suffix(".png")) as file:
        figure(record).savefig(file, format="png", dpi=110)


def _curves(record: dict[str, Any]) -> dict[tuple[str, str], list[list[float]]]:
    """Accuracies by epoch, one list for each seed, by method and noise."""
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for seen in record["runs"].values():
        curves.setdefault((seen["method"], seen["noise"]), []).append(seen["accuracy"])
    return curves


def _means(curves: list[list[float]]) -> tuple[float, float]:
    """Mean last and mean best accuracy, in per cent."""
    return 100 * statistics.mean(curve[-1] for curve in curves), 100 * statistics.mean(map(max, curves))


@cache
def _commit() -> str:
    return commit()


def _cells(curves: list[list[float]]) -> str:
    if not curves:
        return "- | -"
    return f"{spread([curve[-1] for curve in curves])} | {spread([max(curve) for curve in curves])}"


if __name__ == "__main__":
    main()
