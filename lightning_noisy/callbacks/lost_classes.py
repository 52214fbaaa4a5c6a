"""How a user hears of classes that a network has given up."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_warn


def say_collapse(message: str | None) -> None:
    """Warn of such classes, if there are any; what several callbacks find alike is shown once.

    Args:
        message: See :func:`~lightning_noisy.functional.collapse.collapse_message`.
    """
    if message is not None:
        rank_zero_warn(message)
