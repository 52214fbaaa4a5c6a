"""What a search over arguments consists of: its space, and trials that several processes share.

``worker`` and what it stands on import Optuna, which is optional: only ``lightning-noisy tune`` does so, when called.
"""

from collections.abc import Callable

from lightning.pytorch import Trainer

TRIAL, ALL_DATA = "trial", "all_data"
"""Names of the two studies: the search, and what is trained on all data. So the folders of their runs begin."""

Fit = Callable[[list[str], Callable[[Trainer], None]], Trainer]
"""Trains with arguments of ``fit``; calls the function with the Trainer before it starts, and returns the Trainer."""
