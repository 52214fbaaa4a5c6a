"""Arrays that a run leaves in a .npz file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks.criterion_callback import CriterionCallback
from lightning_noisy.errors import check_argument
from lightning_noisy.files import check_writable, written_aside
from lightning_noisy.targets import TargetCall, TargetPipeline
from lightning_noisy.trainer_access import in_run_folder


def check_npz_path(path: str) -> None:
    """Refuse the name of another file.

    Raises:
        NoisyLabelError: ``path`` does not end in .npz.
    """
    check_argument(Path(path).suffix == ".npz", "path", "the name of a .npz file", path)


def check_writable_npz(trainer: Trainer, path: str) -> None:
    """Refuse a file that cannot be written at the end, before a run begins. A collective.

    Args:
        trainer: The Trainer.
        path: As for :func:`write_npz`.

    Raises:
        NoisyLabelError: It cannot be written.
    """
    target = in_run_folder(trainer, path)
    if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
        check_writable(target, "path")


def write_npz(trainer: Trainer, path: str, what: str, arrays: Mapping[str, Tensor | NDArray[Any]] | None) -> None:
    """Write arrays aside on rank 0, then rename, and say where they are. A collective.

    Args:
        trainer: Its run's folder (without a logger, ``default_root_dir``) is what a relative ``path`` is relative to.
        path: Name of the file.
        what: What is written, for the message.
        arrays: CPU tensors or arrays of numbers or text by the names they get; None writes nothing.
    """
    target = in_run_folder(trainer, path)
    if arrays is None or not trainer.is_global_zero:
        return
    values: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    with written_aside(target) as file:
        np.savez(file, **values)
    rank_zero_info(f"{what}: {target}")


class NpzWriter(CriterionCallback):
    """Base of the callbacks that watch a criterion and leave a row for each training sample in a .npz file.

    A subclass keeps what it needs in :meth:`observe_target`, and gives the rows at the end. Beside them stands what
    each sample is in the user's own data: ``path``, text (N,), where data set or data module tell their ``sources`` as
    paths, as those of image files do, else ``row``, int64 (N,): the row of the table or array that the training split
    was taken from, or the position in a data set that says nothing. ``class_names``, text (K,), are there where they
    are known. A sample without a row leaves no file, and a line that says so. A dry run (``fast_dev_run``) writes
    nothing.

    Args:
        path: Name of the file, relative to the run's folder (without a logger, to ``default_root_dir``), or absolute.
        **options: ``criterion``, ``index_key``, ``check_labels``, ``storage``, as in :class:`CriterionCallback`.

    Raises:
        NoisyLabelError: ``path`` does not end in .npz; at fit, it cannot be written.
    """

    content: ClassVar[str]
    """What the file holds, for messages."""

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(**options)
        check_npz_path(path)
        self.path = path

    @abstractmethod
    def arrays(self) -> dict[str, Tensor]:
        """CPU tensors (N, ...) by their names in the file."""

    @abstractmethod
    def missing(self, arrays: dict[str, Tensor]) -> Tensor:
        """Which of the N samples have no row, bool (N,)."""

    def describe(self, arrays: dict[str, Tensor]) -> str:
        """What is written, for the message."""
        return f"{self.content} of {self.section.num_samples} samples"

    @abstractmethod
    def observe_target(self, call: TargetCall) -> None:
        """Keep what the rows are made of."""

    @override
    def join(self, pipeline: TargetPipeline) -> None:
        pipeline.add_observer(self)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        check_writable_npz(trainer, self.path)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        arrays: dict[str, Tensor] | None = None if getattr(trainer, "fast_dev_run", False) else self.arrays()
        if arrays:
            missing = self.missing(arrays)
            if missing.any():
                rank_zero_warn(
                    f"{type(self).__name__} writes no file: {int(missing.sum())} of {len(missing)} samples were never "
                    "seen, and nothing else tells of them."
                )
                arrays = None
        written: Any = {**arrays, **self.run.origins.arrays()} if arrays else None
        write_npz(trainer, self.path, self.describe(arrays) if arrays else "", written)
