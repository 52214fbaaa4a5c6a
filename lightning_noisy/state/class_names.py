"""What the classes of a run are called: by the data that it uses, and by a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from lightning_noisy.checkpoints.check import RUN_STATE
from lightning_noisy.data.origins import CLASS_NAMES, known_class_names
from lightning_noisy.private_api import data_in_use
from lightning_noisy.trainer_access import loaders_in


def class_names_in_use(trainer: Trainer) -> tuple[str, ...] | None:
    """Names of the classes, as the data module or the loaders' data sets have them; None where none tells them."""
    data = data_in_use(trainer)
    datasets = [getattr(loader, "dataset", None) for loader in loaders_in(data)]
    return next(filter(None, map(known_class_names, [data, *datasets])), None)


def saved_class_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes that a checkpoint was trained on, None where it does not say."""
    names = checkpoint.get("callbacks", {}).get(RUN_STATE, {}).get(CLASS_NAMES)
    return None if names is None else tuple(names)
