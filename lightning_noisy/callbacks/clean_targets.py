"""Where callbacks find clean labels, if anybody knows them."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_noisy.data.noise import read_labels
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state import RunDriver
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
            return _looked_at(read_labels(self.source, self.key, num_samples), trainer).to(device)
        known = from_datamodule(trainer, "clean_targets") if self.source is None else self.source
        if known is None:
            return None
        clean = torch.as_tensor(known)
        if clean.shape != (num_samples,) or clean.is_floating_point():
            raise NoisyLabelError(
                f"Expected `clean_targets` to be integers of shape ({num_samples},), one for each training sample, "
                f"but got {clean.dtype} {tuple(clean.shape)}."
            )
        return (clean if self.source is None else _looked_at(clean, trainer)).long().to(device)


def _looked_at(clean: Tensor, trainer: Trainer) -> Tensor:
    """Say it where labels that somebody gives can hardly be the right ones of these samples."""
    given, right = RunDriver.of(trainer).labels, clean.cpu()
    known = right >= 0
    if given is None or not known.any():
        return clean
    same = float((right == given.cpu())[known].float().mean())
    classes = int(given.max()) + 1
    if same < 1 / max(2, classes):
        rank_zero_warn(
            f"Only {same:.0%} of the given labels equal `clean_targets`, fewer than by chance: do these count from 0, "
            "and have the order of the training set?"
        )
    return clean
