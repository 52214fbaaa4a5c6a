"""How a Trainer learns how long an epoch is whose samples are selected."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_noisy.data.samplers import EpochSampler
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.private_api import epoch_length, set_epoch_length
from lightning_noisy.trainer_access import training_loaders


def announce_length(trainer: Trainer, begun: bool = False) -> None:
    """Tell a Trainer how long the epoch is that begins, after samplers have selected what it visits.

    Number of batches, last batch and validation at the epoch's end follow. A strategy's ``prepare_epoch`` needs no
    call. In a project of your own it needs a callback of this package in the Trainer, which follows a resume.

    Args:
        trainer: The Trainer.
        begun: The first batch has begun.
    """
    samplers = _epoch_samplers(trainer)
    for sampler in samplers:
        sampler.set_epoch(trainer.current_epoch)  # Lightning does so after `on_train_start`
    if samplers:
        set_epoch_length(trainer, begun)


def follow_resume(trainer: Trainer) -> None:
    """Bring a Trainer's count of batches to what its loaders were at, when training starts or goes on.

    Lightning counts before loaders know what they visit, and asks then whether the saved epoch was at its end.
    """
    if _epoch_samplers(trainer):
        set_epoch_length(trainer, begun=True)
        announce_length(trainer)


def check_length(trainer: Trainer) -> None:
    """Refuse an epoch that a Trainer takes to be longer or shorter than what its samplers have selected.

    Raises:
        NoisyLabelError: Nobody has called :func:`announce_length`.
    """
    if not _epoch_samplers(trainer):
        return
    length, counted = epoch_length(trainer), trainer.num_training_batches
    if length != counted:
        raise NoisyLabelError(
            f"The training loaders have {length} batches in this epoch, but the Trainer counts {counted}: call "
            "`lightning_noisy.data.announce_length(trainer)` after `select`, at the start of the epoch."
        )


def _epoch_samplers(trainer: Trainer) -> list[EpochSampler]:
    samplers = [getattr(loader, "sampler", None) for loader in training_loaders(trainer)]
    return [sampler for sampler in samplers if isinstance(sampler, EpochSampler)]
