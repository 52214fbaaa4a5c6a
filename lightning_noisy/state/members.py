"""Whether the callbacks of a Trainer keep states apart."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lightning_noisy.private_api import Callback
from lightning_noisy.state.run_state import RunState
from lightning_noisy.state.section import Section


def check_members(trainer: Trainer) -> None:
    """Refuse callbacks that would keep the same state, before a run writes anything.

    Raises:
        NoisyLabelError: There are two.
    """
    run = RunState()
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        section = getattr(callback, "section", None)
        if isinstance(section, Section):
            run.add(section)
