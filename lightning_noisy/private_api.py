"""Everything that the package uses of Lightning and PyTorch beyond what they document, each with why.

What the command line uses beside is in ``cli/private_api.py``.

``tests/test_private_api.py`` fails by name when a version no longer has one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch.utils.checkpoint
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.model_helpers import _restricted_classmethod
from lightning_utilities.core.imports import RequirementCache
from torch import nn
from torch.utils.data import DataLoader

# The two names of Lightning


def is_a(value: object, *names: str) -> TypeGuard[Any]:
    """Whether a value is an instance of a class of Lightning that has one of these names.

    ``lightning.pytorch`` and ``pytorch_lightning`` have each class, and neither's is the other's.
    """
    libraries = ("lightning", "pytorch_lightning")
    return any(cls.__name__ in names and cls.__module__.split(".")[0] in libraries for cls in type(value).__mro__)


if TYPE_CHECKING:
    from lightning.pytorch import Callback as Callback
elif RequirementCache("pytorch-lightning<2.6"):
    from lightning.pytorch import Callback as _Callback

    class Callback(_Callback, import_module("pytorch_lightning").Callback):
        """A callback under both names, as a Trainer of ``pytorch_lightning`` before 2.6 wants it."""

else:
    from lightning.pytorch import Callback as Callback


# The Trainer


def batches_begun(trainer: Trainer) -> int:
    """Training batches that have begun since the first start, over all resumes."""
    begun: int = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    return begun


def batches_processed(trainer: Trainer) -> int:
    """Training batches of the current epoch that are done; after a resume at an epoch's end, those of that epoch."""
    processed: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    return processed


def saved_progress() -> tuple[int, str] | None:
    """While a Trainer saves its loops, up the stack: the epoch's batches that have ended, and how loaders are combined.

    A batch has ended when its ``on_train_batch_end`` has begun, as for Lightning when it resumes. None elsewhere.
    """
    frame = sys._getframe(1)
    while frame is not None:
        loop: Any = frame.f_locals.get("self")
        if type(loop).__name__ == "_FitLoop" and loop._combined_loader is not None:
            return loop.epoch_loop.batch_progress.current.processed, loop._combined_loader._mode
        frame = frame.f_back  # type: ignore[assignment]
    return None


def take_back_unfinished_batch(trainer: Trainer) -> None:
    """Let a Trainer that resumes inside a batch count that batch as not begun, in all of its counts.

    Lightning does so in those of the epoch alone, which makes it misread the checkpoints that follow, and counts a step
    for its loggers; so it does where the first batch of an epoch could not be loaded.
    """
    loop = trainer.fit_loop.epoch_loop
    progress = loop.batch_progress
    begun, ended = progress.current.ready, progress.current.processed  # type: ignore[attr-defined]
    if not loop.restarting or begun == ended > 0:
        return
    if not loop._should_accumulate():
        loop._batches_that_stepped -= 1
    loop._restart_stage = "none"
    progress.total.reset_on_restart()
    progress.is_last_batch = False


def validate_again(trainer: Trainer) -> None:
    """Let a Trainer that resumes inside a validation run the whole of it.

    Lightning goes on with the batches that are left, and calls their mean that of all; before the first batch has ended
    it takes the validation to be over.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.batch_progress.reset()
    loop._restart_stage = "restarted_mid_evaluation"


def set_epoch_length(trainer: Trainer, begun: bool) -> None:
    """Let a Trainer count the batches of the epoch that begins anew; it does so at the start of a fit alone.

    While a resume is pending, Lightning still asks whether the saved epoch was at its end: the count of batches then
    stays until the first batch has ``begun``.
    """
    loop, fetcher = trainer.fit_loop, trainer.fit_loop._data_fetcher
    if loop._combined_loader is None or fetcher is None:
        return
    length = epoch_length(trainer)
    fetcher.length = None if length == inf else int(length)
    if fetcher.length is None or (loop.epoch_loop.restarting and not begun):
        return
    loop.max_batches = fetcher.length
    if isinstance(trainer.val_check_interval, float) and trainer.val_check_batch != float("inf"):
        trainer.val_check_batch = max(1, int(loop.max_batches * trainer.val_check_interval))


def epoch_length(trainer: Trainer) -> float:
    """The batches of the epoch as its loaders are now; ``trainer.num_training_batches`` is what was counted.

    Infinite where a loader without length goes on until its end, as Lightning has it.
    """
    combined, limit = trainer.fit_loop._combined_loader, trainer.limit_train_batches
    assert combined is not None
    lengths = [inf if length is None else length for length in map(sized_len, combined.flattened)]
    combined.limits = [_limited(length, limit) for length in lengths]
    if combined._iterator is not None:
        combined._iterator.limits = combined.limits
    length = sized_len(combined)
    return inf if length is None else length


def _limited(length: float, limit: int | float) -> float:
    if isinstance(limit, int):
        return min(length, limit)
    return length if length == inf else int(length * limit)


def data_in_use(trainer: Trainer) -> Any:
    """What a Trainer's loaders come from: data module, module, or the loaders; it keeps the data module of before."""
    source = getattr(getattr(trainer, "_active_loop", None), "_data_source", None)
    return getattr(trainer, "datamodule", None) if source is None else source.instance


def being_iterated(trainer: Trainer) -> tuple[list[Any], bool]:
    """The iterators of the training loaders, and whether Lightning reads one batch ahead of the one that it trains.

    It does beside a loader without length. Where the training step fetches for itself, there are none.
    """
    combined, fetcher = trainer.fit_loop._combined_loader, trainer.fit_loop._data_fetcher
    assert combined is not None
    if is_a(fetcher, "_DataLoaderIterDataFetcher") or fetcher is None or combined._iterator is None:
        return [], False
    return combined._iterator.iterators, fetcher.length is None


@contextmanager
def surrounded(owner: object, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """A method of one object that is changed until the end of the context; Lightning calls it by its name."""
    setattr(owner, name, around(getattr(owner, name)))
    try:
        yield
    finally:
        delattr(owner, name)


class WatchedLoader(DataLoader[Any]):
    """A DataLoader whose iterators ask :meth:`watch` for the sampler that they read keys from."""

    def watch(self, sampler: Any) -> Any:
        """The sampler, or what stands for it."""
        return sampler

    @property
    def _index_sampler(self) -> Any:
        return self.watch(super()._index_sampler)

    def renew_persistent(self) -> None:
        """Let an iterator with persistent workers, which stays for all epochs, read from what :meth:`watch` gives."""
        if self._iterator is not None:
            self._iterator._index_sampler = self._index_sampler


def keys_and_count(iterator: Any) -> tuple[Any, int]:
    """Where an iterator of a DataLoader reads keys from, and how many batches it has given; None where it is none."""
    return getattr(iterator, "_sampler_iter", None), getattr(iterator, "_num_yielded", 0)


def has_own_checkpoint_io(trainer: Trainer) -> bool:
    """Whether a user, or the strategy itself, says how checkpoints are written; the property would make one."""
    strategy = trainer.strategy
    return strategy._checkpoint_io is not None or type(strategy.checkpoint_io) is not TorchCheckpointIO


def finds_unused_parameters(trainer: Trainer) -> bool:
    """Whether DDP lets parameters go without a gradient; what is no DDP waits for none."""
    return bool(
        getattr(trainer.strategy, "_ddp_kwargs", {"find_unused_parameters": True}).get("find_unused_parameters")
    )


def last_saved(checkpoint: ModelCheckpoint) -> str:
    """The file that a ModelCheckpoint has written last, in this process or the one before; empty if there is none."""
    return checkpoint._last_checkpoint_saved or checkpoint.last_model_path or checkpoint.best_model_path


def checkpoint_interval(checkpoint: ModelCheckpoint) -> tuple[int, timedelta | None]:
    """The optimizer steps (0: none) and the time after which a ModelCheckpoint writes inside an epoch."""
    return checkpoint._every_n_train_steps, checkpoint._train_time_interval


def in_checkpointed_region() -> bool:
    """Whether this runs inside ``torch.utils.checkpoint``, which will run it again for the gradient."""
    frame, file = sys._getframe(1), torch.utils.checkpoint.__file__
    while frame is not None:
        if frame.f_code.co_filename == file:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def is_compiled(module: nn.Module) -> bool:
    """Whether a module, or the LightningModule that it is, has gone through ``torch.compile``."""
    by_lightning = getattr(module, "_compiler_ctx", None) is not None
    in_place = getattr(module, "_compiled_call_impl", None) is not None
    return by_lightning or in_place or hasattr(module, "_orig_mod")


def calling_module() -> LightningModule | None:
    """The LightningModule whose training step a Trainer is running right now, up the stack; None without one."""
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if is_a(caller, "LightningModule") and caller._trainer is not None and caller._trainer.training:
            return cast(LightningModule, caller)
        frame = frame.f_back  # type: ignore[assignment]
    return None


restricted_classmethod = _restricted_classmethod
"""Decorator of a classmethod that refuses to be called on an instance, where what it returns would be lost."""
