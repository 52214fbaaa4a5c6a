"""What is put around a Trainer's loaders and steps while a run lasts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_noisy.data.index_recorder import record, stop_recording
from lightning_noisy.private_api import surrounded
from lightning_noisy.state.run_state import RunState
from lightning_noisy.trainer_access import loaders_in, may_run_again


def record_loaders(trainer: Trainer, state: RunState, around: ExitStack) -> None:
    """Let loaders record which positions they hand out, if anybody asks for them, until ``around`` is closed."""

    def recorded(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def processed(loader: Any) -> Any:
            loader = process(loader)
            if state.needs_index:
                for one in loaders_in(loader):
                    record(one)
                    around.callback(stop_recording, one)
            return loader

        return processed

    around.enter_context(surrounded(trainer.strategy, "process_dataloader", recorded))


def reach_steps(trainer: Trainer, pl_module: LightningModule, state: RunState, around: ExitStack) -> None:
    """Know which steps run again in a batch, and enter what reaches the functions that a step calls."""
    if not state.modes and not may_run_again(trainer, pl_module):
        return

    def reached(training_step: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            state.open_batch.enter_step()
            with state.step():
                return training_step(*args, **kwargs)

        return step

    around.enter_context(surrounded(trainer.strategy, "training_step", reached))
