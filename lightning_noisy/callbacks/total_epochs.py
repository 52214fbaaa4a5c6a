"""The number of epochs that a schedule spans: resolved once, saved, kept at resume."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_noisy.errors import check_count
from lightning_noisy.trainer import resolve_total_epochs, starts_afresh


class TotalEpochs:
    """E of a schedule.

    Args:
        given: What the user gave; None takes the Trainer's ``max_epochs`` at the first start.
        owner: The callback's name, for messages.

    Raises:
        NoisyLabelError: ``given`` is no int of at least 1; at :meth:`begin`, a Trainer without ``max_epochs``.
    """

    def __init__(self, given: int | None, owner: str) -> None:
        check_count(given, "total_epochs", optional=True)
        self.given = given
        self.owner = owner
        self.value: int | None = None
        """E; None before the first start. What a checkpoint brings is put here."""

    def begin(self, trainer: Trainer) -> int:
        """E for a run that starts or goes on now."""
        saved = None if starts_afresh(trainer) else self.value
        if saved is not None and self.given not in (None, saved):
            rank_zero_warn(
                f"{self.owner} goes on with total_epochs={self.given} as given; the checkpoint was written with "
                f"{saved}."
            )
        self.value = self.given or saved or resolve_total_epochs(trainer, self.owner)
        return self.value
