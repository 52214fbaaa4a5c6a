"""What ``predict`` has predicted, in a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from lightning_noisy.callbacks.npz_writer import check_npz_path, check_writable_npz, write_npz
from lightning_noisy.collectives import gather_over_processes
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import Callback


class PredictionWriter(BasePredictionWriter, Callback):
    """Writes the probabilities of ``Trainer.predict`` to one .npz file, whatever the number of processes.

    The file holds ``index``, int64 (N,), positions in the predicted data set in ascending order, and
    ``probabilities``, float32 (N, K). It loads with ``allow_pickle=False``. The command line includes this callback.

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).

    Raises:
        NoisyLabelError: Another suffix; at predict, a file that cannot be written, or more than one loader to predict.
    """

    def __init__(self, path: str = "predictions.npz") -> None:
        super().__init__(write_interval="epoch")
        check_npz_path(path)
        self.path = path

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
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
        what = f"Probabilities of {len(rows)} samples"
        write_npz(trainer, self.path, what, {"index": rows[order], "probabilities": probabilities[order]})


def _note_indices(trainer: Any) -> None:
    """Let a Trainer of ``pytorch_lightning`` note the indices of batches: it does so for a writer of its own alone."""
    own = sys.modules["pytorch_lightning"].callbacks.BasePredictionWriter
    if not any(type(callback) is own for callback in trainer.callbacks):
        recorder = own(write_interval="epoch")
        recorder.write_on_epoch_end = lambda *arguments: None
        trainer.callbacks.append(recorder)
