"""The papers' sensitivity figures: how much each method depends on its arguments.

    python -m benchmarks.sensitivity dcm-6 --features cifar10_embeddings.npz --labels cifar10n.npz
    python -m benchmarks.sensitivity dal-3 --images data --jobs 4 -- --trainer.precision=bf16-mixed

Which arguments, and over which values, stands in ``sweeps.py``. On features all is as in ``benchmarks.methods``:
CIFAR-10 in features of a network that was trained on ImageNet, a hidden layer of 512, 20 epochs, numbers of epochs in
proportion. On images each run is a recipe of its paper with the arguments on top, through the command line, as long as
published; ``--images`` is the folder that holds CIFAR-10, and what follows ``--`` goes to every run.

Runs that the record holds are not done again, so a sweep that was interrupted goes on where it stopped.

On features it shows which arguments a method is sensitive to on top of good features. It does not show training from
images, for which the papers drew these figures. Nothing was tuned; the best epoch is chosen by the test set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from lightning.pytorch import seed_everything

from benchmarks.compact import read_compact, write_compact
from benchmarks.grid import Run, fill
from benchmarks.method_list import Fitter, Settings
from benchmarks.record import RESULTS, commit, write_picture, write_table
from benchmarks.sensitivity_tables import figure, table
from benchmarks.sweeps import SWEEPS, Sweep, make
from lightning_noisy.callbacks import RunSummary


@dataclass(frozen=True)
class ImageSettings:
    """What all runs of a record on images share."""

    test_rows: int = 10_000
    more: str = ""
    """What goes to the command line of each."""


def feature_run(features: str, labels: str, settings: Settings, figure: str, point: str, noise: str, seed: int) -> Run:
    """A point of a sweep on features: clean test accuracy by epoch."""
    began = time.perf_counter()
    seed_everything(seed, verbose=False)
    line_name, arguments = SWEEPS[figure].points()[point]
    line, fitter = SWEEPS[figure].lines[line_name], Fitter(features, labels, settings, noise, seed)
    method = line.method(fitter.epochs, **arguments)
    options = {} if line.head is None else {"head": partial(make_head, line.head)}
    fitted = fitter.fit(make(method.loss), *map(make, method.callbacks), **options)
    return _seen(point, noise, seed, fitted.accuracy, began)


def image_run(root: str, settings: ImageSettings, figure: str, point: str, noise: str, seed: int) -> Run:
    """A point of a sweep on images, by the command line."""
    from lightning_noisy.cli import main as command_line  # a process of its own reads its seed when it starts

    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        config = Path(folder, "point.yaml")
        config.write_text(yaml.safe_dump(on_top_of_recipe(SWEEPS[figure], point, noise, root, seed)))
        place = [f"--trainer.default_root_dir={folder}", *settings.more.split()]
        cli = command_line(["fit", f"--config={config}", *place])
    (summary,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, RunSummary))
    return _seen(point, noise, seed, [seen["test/acc"] for seen in summary.history.values()], began)


def on_top_of_recipe(sweep: Sweep, point: str, noise: str, root: str, seed: int) -> dict[str, Any]:
    """The configuration of a point: what differs from the recipe of its line."""
    line_name, arguments = sweep.points()[point]
    line = sweep.lines[line_name]
    method = line.method(lambda published, of: round(published), **arguments)
    return {
        "base": line.recipe,
        "seed_everything": seed,
        "trainer": {"callbacks+": list(method.callbacks), "logger": False, "enable_progress_bar": False},
        "model": {"loss": method.loss},
        "data": {"root": root, "noise": {"rate": float(noise.rsplit(" ", 1)[1])}},
    }


def make_head(spec: dict[str, Any], in_features: int, num_classes: int) -> Any:
    """A head of so many features and classes."""
    sizes = {"in_features": in_features, "out_features": num_classes}
    return make({**spec, "init_args": {**spec["init_args"], **sizes}})


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the runs of a figure, print the table and write it beside the record, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=SWEEPS)
    parser.add_argument("--features", type=Path, help="npz: x (N, D), y (N,) clean, test set last")
    parser.add_argument("--labels", type=Path, help="npz with the labels of the training rows")
    parser.add_argument("--images", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--test-rows", type=int, default=Settings.test_rows)
    parser.add_argument("--epochs", type=int, default=Settings.epochs, help="on features")
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size, help="on features")
    parser.add_argument("--hidden", type=int, default=Settings.hidden, help="on features")
    parser.add_argument("--noises", nargs="+", metavar="NOISE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--results", type=Path)
    words = list(sys.argv[1:] if arguments is None else arguments)
    place = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:place])
    if (given.images is None) == (given.features is None) or (given.features is None) != (given.labels is None):
        parser.error("give either --images, or --features and --labels")
    sweep, (settings, one_run, noises) = SWEEPS[given.figure], _ground(given, " ".join(words[place + 1 :]))
    runs = {
        f"{point}, {noise}, {seed}": {"point": point, "noise": noise, "seed": seed}
        for seed in given.seeds
        for point in sweep.points()
        for noise in given.noises or noises
    }
    kind = "" if given.images is None else "-images"
    results = given.results or RESULTS / f"sensitivity-{given.figure}{kind}.json"
    record = fill(results, settings, runs, one_run, given.jobs, read_compact, write_compact)
    rows = table(sweep, record)
    print(rows)
    write_table(results, rows)
    write_picture(results, figure(sweep, record))


def _ground(given: argparse.Namespace, more: str) -> tuple[Any, Callable[..., Run], list[str]]:
    """Settings, what does a run, and the noises, on features or on images."""
    sweep = SWEEPS[given.figure]
    if given.images is not None:
        settings = ImageSettings(given.test_rows, more)
        noises = [f"symmetric {rate}" for rate in sweep.rates]
        return settings, partial(image_run, str(given.images.absolute()), settings, given.figure), noises
    torch.set_num_threads(1)
    features = Settings(given.test_rows, given.epochs, given.batch_size, given.hidden)
    run = partial(feature_run, str(given.features), str(given.labels), features, given.figure)
    return features, run, list(sweep.noises)


def _seen(point: str, noise: str, seed: int, accuracy: list[float], began: float) -> Run:
    seconds = round(time.perf_counter() - began, 1)
    shown = {"accuracy": accuracy, "seconds": seconds, "commit": _commit()}
    return {"method": point, "noise": noise, "seed": seed, **shown}


@cache
def _commit() -> str:
    return commit()


if __name__ == "__main__":
    main()
