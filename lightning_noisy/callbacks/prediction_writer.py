"""What ``predict`` has predicted, in files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from numpy.typing import NDArray
from typing_extensions import override

from lightning_noisy.callbacks.npz_writer import check_npz_path, check_writable_npz, write_npz
from lightning_noisy.collectives import gather_over_processes
from lightning_noisy.data.origins import CLASS_NAMES, PATH, origin_arrays, sources_of
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import Callback
from lightning_noisy.spreadsheets import write_csv
from lightning_noisy.state import RunDriver, class_names_in_use
from lightning_noisy.trainer_access import in_run_folder, loaders_in


class PredictionWriter(BasePredictionWriter, Callback):
    """Writes the probabilities of ``Trainer.predict`` to one .npz file, whatever the number of processes.

    The file holds ``index``, int64 (N,), positions in the predicted data set in ascending order, ``probabilities``,
    float32 (N, K), and ``predicted``, text (N,), the class of the largest one: its name, where checkpoint or data tell
    the names, else its number. ``class_names``, text (K,), are there where they are known. What each sample is in the
    user's own data stands in ``path``, text (N,), or ``row``, int64 (N,), see
    :func:`~lightning_noisy.data.sources_of`. It loads with ``allow_pickle=False``.

    Where samples are files, a CSV table of the same name stands beside it, a row for each: ``path``, ``predicted``,
    ``probability`` of that class, and ``p(<class>)`` of all classes; text that a spreadsheet would run as a formula
    gets an apostrophe in front. The command line includes this callback.

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).

    Raises:
        NoisyLabelError: Another suffix; at predict, a file that cannot be written, more than one loader to predict, or
            a checkpoint of other classes than those of the data.
    """

    def __init__(self, path: str = "predictions.npz") -> None:
        super().__init__(write_interval="epoch")
        check_npz_path(path)
        self.path = path

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            RunDriver.of(trainer)  # knows what the classes of the checkpoint are called
        if not isinstance(trainer, Trainer):
            _note_indices(trainer)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_writable_npz(trainer, self.path)

    @override
    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        if len(batch_indices) != 1:
            raise NoisyLabelError(f"PredictionWriter writes one data set, but {len(batch_indices)} were predicted.")
        index = torch.tensor([i for batch in batch_indices[0] for i in batch], dtype=torch.int64)
        parts = gather_over_processes((index, torch.cat([batch.float().cpu() for batch in predictions])))
        rows, probabilities = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        order = rows.argsort()
        arrays = _named(trainer, pl_module, rows[order].numpy(), probabilities[order].numpy())
        write_npz(trainer, self.path, f"Probabilities of {len(rows)} samples", arrays)
        if PATH in arrays and trainer.is_global_zero:
            _write_table(in_run_folder(trainer, self.path).with_suffix(".csv"), arrays)


def _named(
    trainer: Trainer, pl_module: LightningModule, index: NDArray[Any], probabilities: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """What the file holds."""
    dataset = getattr(loaders_in(trainer.predict_dataloaders)[0], "dataset", None)
    sources = sources_of(dataset)[index] if hasattr(dataset, "__len__") else index
    run = RunDriver.of(trainer)
    names = run.origins.class_names or getattr(pl_module, CLASS_NAMES, None) or class_names_in_use(trainer)
    shown = np.array([str(number) for number in range(probabilities.shape[1])] if names is None else names)
    predicted = shown[probabilities.argmax(axis=1)]
    return {
        "index": index,
        "probabilities": probabilities,
        "predicted": predicted,
        **origin_arrays(names, sources),
    }


def _write_table(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    probabilities = arrays["probabilities"]
    names = arrays.get(CLASS_NAMES, np.arange(probabilities.shape[1]))
    header = [PATH, "predicted", "probability", *(f"p({name})" for name in names)]
    columns = arrays[PATH].tolist(), arrays["predicted"].tolist(), probabilities
    write_csv(
        path, header, ([*told, *(f"{p:.6g}" for p in (row.max(), *row))] for *told, row in zip(*columns, strict=True))
    )


def _note_indices(trainer: Any) -> None:
    """Let a Trainer of ``pytorch_lightning`` note the indices of batches: it does so for a writer of its own alone."""
    own = sys.modules["pytorch_lightning"].callbacks.BasePredictionWriter
    if not any(type(callback) is own for callback in trainer.callbacks):
        recorder = own(write_interval="epoch")
        recorder.write_on_epoch_end = lambda *arguments: None
        trainer.callbacks.append(recorder)
