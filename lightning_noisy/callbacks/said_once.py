"""How a user hears of what speaks against a run's result."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn


def say_once(message: str | None) -> None:
    """Warn of something, if there is something; what several callbacks find alike is shown once.

    Args:
        message: A sentence or two, such as :func:`~lightning_noisy.functional.collapse.collapse_message`.
    """
    if message is not None:
        rank_zero_warn(message)
