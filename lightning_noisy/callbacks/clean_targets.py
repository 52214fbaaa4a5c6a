"""Where callbacks find clean labels, if anybody knows them."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_noisy.data.noise import read_labels
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.trainer_access import from_datamodule


class CleanTargets:
    """Clean labels from a tensor, a file, or the data module's ``clean_targets``.

    Args:
        source: int64 (N,) tensor; path of a .npy or .npz file; or None, which asks the data module.
        key: Name of the array inside an .npz file.
    """

    def __init__(self, source: Tensor | str | None = None, key: str | None = None) -> None:
        self.source = source
        self.key = key

    def resolve(self, trainer: Trainer, num_samples: int, device: torch.device) -> Tensor | None:
        """The clean labels (N,) on ``device``, None if nobody knows them.

        Raises:
            NoisyLabelError: They are no labels of this training set.
        """
        if isinstance(self.source, str):
            return read_labels(self.source, self.key, num_samples).to(device)
        known = from_datamodule(trainer, "clean_targets") if self.source is None else self.source
        if known is None:
            return None
        clean = torch.as_tensor(known)
        if clean.shape != (num_samples,) or clean.is_floating_point():
            raise NoisyLabelError(
                f"Expected `clean_targets` to be integers of shape ({num_samples},), one for each training sample, "
                f"but got {clean.dtype} {tuple(clean.shape)}."
            )
        return clean.long().to(device)
