"""How a training becomes a run: its folder, its data, and in a dry run what makes it small."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import made_up
from benchmarks.cells import Training, changes, settings_of
from benchmarks.runs import Run
from lightning_noisy.errors import NoisyLabelError, check_argument

_SMALL = (
    *(f"--trainer.{name}" for name in ("accelerator=cpu", "devices=1", "strategy=auto", "sync_batchnorm=false")),
    *(f"--trainer.{name}" for name in ("max_epochs=2", "limit_train_batches=2", "limit_val_batches=1")),
    *("--model.backbone=lightning_noisy.networks.SmallCNN", "--model.backbone.in_channels=3"),
    *("--model.backbone.width=4", "--model.backbone.num_features=16", "--data.batch_size=16", "--data.num_workers=0"),
)


@dataclass(frozen=True)
class RunMaker:
    """Makes the runs of a call.

    Args:
        output: Their folders lie in it.
        root: Folder of the data sets.
        toy: Whether it is a dry run.
    """

    output: Path
    root: Path
    toy: bool

    def make(self, training: Training, seed: int) -> Run:
        """The run of a training.

        Raises:
            NoisyLabelError: A dry run of other data than CIFAR.
        """
        root = (self.output / "made_up" if self.toy else self.root).resolve()
        data = _moved(settings_of(training.recipe)["data"], root)
        if self.toy:
            data = {**data, "class_path": _made_up(data["class_path"])}
        words = [_moved(word, root) for word in training.arguments.split()]
        small = _SMALL if self.toy else ()
        name = f"{training.recipe.replace('/', '-')}-{sha256(training.what.encode()).hexdigest()[:8]}-seed_{seed}"
        config = {"base": training.recipe, "data": data, **changes(training)}
        return Run(training, seed, self.output / name, config, (*words, *small, *shlex.split(training.options)))

    def provide(self, run: Run) -> None:
        """See to it that a run has its data: a dry run's files of labels are made, others have to be there.

        Raises:
            NoisyLabelError: They are not; the line says how to get them.
        """
        words = _words([run.config["data"], *run.arguments])
        labels = [Path(word) for word in words if word.endswith((".npy", ".npz"))]
        if self.toy:
            for path in labels:
                made_up.write_labels(path)
            return
        kind, root = _class(run.config["data"]["class_path"]), run.config["data"]["init_args"]["root"]
        if hasattr(kind, "folder") and not Path(root, kind.folder).is_dir():
            get = f"torchvision.datasets.{kind.title.replace('-', '')}({root!r}, download=True)"
            raise NoisyLabelError(
                f"{kind.title} is not in '{root}', which should hold '{kind.folder}': give its folder as `--root`, or "
                f'get it by `python -c "import torchvision; {get}"`.'
            )
        for path in labels:
            if path.is_relative_to(self.root) and not path.is_file():
                raise NoisyLabelError(f"No labels in '{path}': docs/recipes.md says how to make the file.")


def _moved(node: Any, root: Path) -> Any:
    """Settings whose data are below another folder than ``data``."""
    if isinstance(node, dict):
        return {key: _moved(value, root) for key, value in node.items()}
    if isinstance(node, str) and (node == "data" or node.startswith("data/")):
        return str(root / node.removeprefix("data").removeprefix("/"))
    return node


def _words(node: Any) -> Iterator[str]:
    """All strings of settings."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, (dict, list)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _words(value)


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _made_up(class_path: str) -> str:
    name = f"MadeUp{class_path.rpartition('.')[2].removesuffix('DataModule')}"
    check_argument(hasattr(made_up, name), "toy", "left out for other data than CIFAR", class_path)
    return f"{made_up.__name__}.{name}"
