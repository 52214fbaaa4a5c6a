"""What ``lightning-noisy audit`` has ``fit`` run: a recipe of ``own/`` with what depends on the data on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from lightning_noisy.data.table_layout import integers_that_occur, table_layout
from lightning_noisy.errors import NoisyLabelError, check_argument
from lightning_noisy.networks.pretrained import Pretrained
from lightning_noisy.recipes import TENSORBOARD, Settings, on_top, recipe_settings

_MANY = 10_000  # samples from which on large steps learn more than they memorize
# A step moves an output by the square of the features' norm: their number.
_RATE, _RATE_OF_MANY, _FASTEST = 6.4, 19.2, 0.1
_DATA = "lightning_noisy.data"
_REPORT = "lightning_noisy.callbacks.LabelIssueReport"


def feature_settings(features: Path) -> Settings:
    """A hidden layer and a head on features, trained with noise: smaller steps and more noise below 10,000 samples.

    Args:
        features: A file with ``x`` (N, D) and ``y`` (N,).

    Raises:
        NoisyLabelError: The file has no labels, or is no such file.
    """
    samples, width, classes = _sizes(features)
    recipe, rate = ("own/features-many", _RATE_OF_MANY) if samples >= _MANY else ("own/features", _RATE)
    steps = {"lr": round(min(_FASTEST, rate / width), 5)}
    model = {"num_classes": classes, "backbone": {"in_features": width}, "optimizer": steps}
    return on_top(recipe_settings(recipe), {"model": model, "data": {"path": str(features)}})


def photo_settings(recipe: str, path: Path, columns: tuple[str | None, str | None], num_classes: int) -> Settings:
    """A network on the images themselves.

    Args:
        recipe: One that trains on image files.
        path: A folder with one for each class, or a table.
        columns: Of a table, that of the paths and that of the labels; None looks for a usual name.
        num_classes: K.
    """
    data: Settings = {"class_path": f"{_DATA}.ImageFolderDataModule", "init_args": {"root": str(path)}}
    if path.is_file():
        layout = table_layout(path, *columns)
        named = {"table": str(path), "image_column": layout.image_column, "label_column": layout.label_column}
        names = integers_that_occur(path, layout)
        further = {"delimiter": layout.delimiter, "root": None} | ({} if names is None else {"class_names": names})
        data = {"class_path": f"{_DATA}.CSVDataModule", "init_args": {**named, **further}}
    return on_top(recipe_settings(recipe), {"model": {"num_classes": num_classes}, "data": data})


def pretrained_settings(network: Pretrained, weights: str | None) -> Settings:
    """What a pretrained network changes: itself, and what it expects of images.

    Args:
        network: The network.
        weights: The file that its weights are from; None where they are its own.
    """
    backbone: Settings = {"name": network.name} | ({} if weights is None else {"weights": weights})
    pixels = {name: [round(value, 4) for value in getattr(network, name)] for name in ("mean", "std")}
    return {"model": {"backbone": backbone}, "data": {"image_size": network.image_size, **pixels}}


def as_run(settings: Settings, output: Path, epochs: int | None, seed: int, report: Settings) -> Settings:
    """The same as a run of a folder.

    Args:
        settings: Of ``fit``.
        output: The run's folder.
        epochs: Their number; None leaves it.
        seed: Of all draws.
        report: Arguments of ``LabelIssueReport``.
    """
    logger = {"save_dir": str(output.parent), "name": output.name, "version": ""}
    callbacks = [
        {**callback, "init_args": report} if callback["class_path"] == _REPORT else callback
        for callback in settings["trainer"]["callbacks"]
    ]
    changes: dict[str, Any] = {
        "seed_everything": seed,
        "trainer": {"logger": {"class_path": TENSORBOARD, "init_args": logger}, "callbacks": callbacks},
    }
    if epochs is not None:
        changes["trainer"]["max_epochs"] = epochs
        changes["model"] = {"lr_scheduler": {"T_max": epochs}}
    return on_top(settings, changes)


def _sizes(features: Path) -> tuple[int, int, int]:
    """Samples N, width D and classes K of a file."""
    try:
        with np.load(features, allow_pickle=False) as file:
            found = {name: file[name] for name in ("x", "y") if name in file.files}
            names = file["class_names"] if "class_names" in file.files else ()
    except (EOFError, OSError, ValueError, BadZipFile) as error:
        raise NoisyLabelError(f"Expected '{features}' to hold features `x` and labels `y`, but {error}.") from error
    if len(found) < 2:
        lacking = "y" if "x" in found else "x"
        raise NoisyLabelError(f"Expected '{features}' to hold features `x` and labels `y`, but it lacks `{lacking}`.")
    x, y = found["x"], found["y"]
    shaped = x.ndim == 2 and y.ndim == 1 and len(x) == len(y) > 0 and x.shape[1] > 0
    check_argument(shaped, "PATH", "a file with `x` (N, D) and `y` (N,)", f"{x.shape} and {y.shape}")
    check_argument(y.dtype.kind in "iu", "PATH", "a file whose `y` are integers that count classes", f"{y.dtype}")
    check_argument(
        y.min() < max(0, y.max()), "PATH", "a file whose `y` have two classes at least", f"{int(y[0])} alone"
    )
    classes = max(int(y.max()) + 1, len(names), 2)
    wanted = f"a file whose `y` count classes from 0, not more than there are samples ({len(y)})"
    check_argument(classes <= len(y), "PATH", wanted, f"a label {int(y.max())}")
    if empty := sorted({*range(classes)} - {*y.tolist()}):
        few = ", ".join(map(str, empty[:8])) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
        print(f"{len(empty)} of {classes} classes have no sample in `y`: {few}. Labels count from 0, without gaps.")
    return len(x), x.shape[1], classes
