"""How many epochs the schedules of a run span."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.state.delays import warn_of_length

_LIGHTNING_FALLBACK = 1000


class ScheduleSpans:
    """Numbers of epochs that are resolved at the first start of a run, and kept at resume."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        """Number of epochs of each schedule, by its key."""
        self.ends_after: int | None = None
        """After how many epochs this start of the run ends; None where that is unknown."""

    def resolve(self, key: str, owner: str, given: int | None, max_epochs: int | None) -> int:
        """The number of epochs of a schedule.

        Args:
            key: What tells it apart.
            owner: Its name, for messages.
            given: What the user gave.
            max_epochs: The run's number of epochs, which counts where nothing is given or saved.

        Raises:
            NoisyLabelError: Nobody says how many.
        """
        saved = self.epochs.get(key)
        if saved is not None and given not in (None, saved):
            rank_zero_warn(
                f"{owner} goes on with total_epochs={given} as given; the checkpoint was written with {saved}."
            )
        self.epochs[key] = given or saved or _limit(owner, max_epochs)
        if self.ends_after is not None and self.epochs[key] > self.ends_after:
            warn_of_length(owner, "total_epochs", f"spans {self.epochs[key]} epochs", self.ends_after)
        return self.epochs[key]


def _limit(owner: str, max_epochs: int | None) -> int:
    if max_epochs is None or max_epochs < 1:
        raise NoisyLabelError(
            f"{owner} needs the number of epochs, but the Trainer's `max_epochs` is {max_epochs!r}: set "
            f"`Trainer(max_epochs=...)`, or pass `total_epochs` to {owner}."
        )
    if max_epochs == _LIGHTNING_FALLBACK:
        rank_zero_info(
            f"{owner} spans {max_epochs} epochs, which Lightning also takes when nobody says how many: set"
            " `Trainer(max_epochs=...)` if you meant another number."
        )
    return max_epochs
