"""What ``predict`` has predicted, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from typing_extensions import override

from lightning_noisy.callbacks._npz_file import check_npz_path, write_npz
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.processes import process_count


class PredictionWriter(BasePredictionWriter):
    """Writes the probabilities of ``Trainer.predict`` to one .npz file, whatever the number of processes.

    The file holds ``index``, int64 (N,), positions in the predicted data set in ascending order, and
    ``probabilities``, float32 (N, K). It loads with ``allow_pickle=False``. The command line includes this callback.

    Args:
        path: Name of the file, ending in .npz; relative names lie in the run's folder (without a logger, in the
            Trainer's ``default_root_dir``).

    Raises:
        NoisyLabelError: Another suffix; more than one loader to predict.
    """

    def __init__(self, path: str = "predictions.npz") -> None:
        super().__init__(write_interval="epoch")
        check_npz_path(path)
        self.path = path

    @override
    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        if len(batch_indices) != 1:
            raise NoisyLabelError(f"PredictionWriter writes one data set, but {len(batch_indices)} were predicted.")
        index = torch.tensor([i for batch in batch_indices[0] for i in batch], dtype=torch.int64)
        parts = _gather((index, torch.cat([batch.float().cpu() for batch in predictions])))
        if not trainer.is_global_zero:
            return
        rows, probabilities = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        order = rows.argsort()
        what = f"Probabilities of {len(rows)} samples"
        write_npz(trainer, self.path, what, index=rows[order], probabilities=probabilities[order])


def _gather(part: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The parts of all processes."""
    parts: list[Any] = [part] * process_count()
    if len(parts) > 1:
        torch.distributed.all_gather_object(parts, part)
    return parts
