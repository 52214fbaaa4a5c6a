"""The callbacks of this package in a loop of your own, with Lightning Fabric or plain PyTorch."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_noisy.callbacks import (
    CDR,
    CriterionCallback,
    LossMemory,
    MaskRefresh,
    MaskTracker,
    MixUp,
    StepSeed,
)
from lightning_noisy.callbacks.parameter_schedule import ScheduleCallback
from lightning_noisy.collectives import process_rank
from lightning_noisy.data.batch import Batch
from lightning_noisy.data.indexed import known_labels
from lightning_noisy.errors import NoisyLabelError, check_argument, check_count
from lightning_noisy.private_api import Callback
from lightning_noisy.state import RunDriver, TrainingSet
from lightning_noisy.state.sharding import check_shards
from lightning_noisy.targets import TargetPipeline
from lightning_noisy.trainer_access import stand_in_trainer

_TAKEN = (CDR, CriterionCallback, LossMemory, MaskRefresh, MaskTracker, ScheduleCallback, StepSeed)


class NoisyLoop:
    """Callbacks act around the steps of a loop that you write.

    SELC, gradient switching, soft labels, masks, CDR, schedules by epoch, trackers, losses with memory do what they do
    under a Trainer. The criterion is ``F.cross_entropy``, ``nn.CrossEntropyLoss`` or ``F.nll_loss`` wherever it is
    called, or the module ``criterion``.

    An optimizer that evaluates the loss several times in a step (SAM, LBFGS) gets a closure inside of :meth:`batch`,
    ``optimizer.step(closure)``. Stores and metrics are those of its first call.

    Args:
        module: What is trained; under Fabric the module before ``fabric.setup``.
        optimizer: Its optimizer, before ``fabric.setup``, or several; they are listened to until :meth:`finish`.
        callbacks: Callbacks of this package that need nothing of a Trainer.
        train_set: The training set, with a length; its labels are held to those at the criterion where they are known.
        max_epochs: Number of epochs, for schedules; None where there is none.
        criterion: A loss of this package, or another module that is called with logits and target.
        seed: Seed of the callbacks' draws.

    Raises:
        NoisyLabelError: A callback that acts on a Trainer's batches or files.

    Example::

        callbacks = [SELC(warmup_epochs=2), MaskRefresh("head")]
        noisy = NoisyLoop(model, optimizer, callbacks, train_set, max_epochs=10)
        for epoch in range(10):
            for x, y, index in loader:
                with noisy.batch(index, epoch):
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()
                optimizer.zero_grad()
            print(noisy.end_epoch())
        noisy.finish()
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        callbacks: Sequence[Callback],
        train_set: Any,
        max_epochs: int | None = None,
        criterion: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        for callback in callbacks:
            steps = isinstance(callback, ScheduleCallback) and callback.interval == "step"
            if not isinstance(callback, _TAKEN) or isinstance(callback, MixUp) or steps:
                raise NoisyLabelError(
                    f"{type(callback).__name__} acts on what a Trainer does and cannot act in a loop of your own: "
                    "leave it out, or use a Trainer."
                )
        self.callbacks = list(callbacks)
        self._driver = RunDriver()
        self._module = module if criterion is None else _with_criterion(module, criterion)
        self._train_set = train_set
        self._seed = seed
        self._max_epochs = max_epochs
        self._fresh, self._begun, self._batch_idx = True, False, 0
        self._optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        self._hooks: list[RemovableHandle] = []
        self.trainer: Any = stand_in_trainer([self._driver, *self.callbacks], process_rank())
        """What callbacks ask for epoch, step and processes."""

    @contextmanager
    def batch(self, index: Tensor, epoch: int) -> Iterator[None]:
        """Around a training step: forward, criterion, backward and the optimizer's step.

        Args:
            index: Positions of the batch's samples in the training set, int64 (B,).
            epoch: Number of the epoch, from 0.
        """
        run = self._driver.state
        self._check_batch(index, epoch)
        if not self._begun:
            self._begin()
        if run.open_epoch is not None and run.open_epoch != epoch:
            raise NoisyLabelError(
                f"Epoch {epoch} begins while epoch {run.open_epoch} is open: call `end_epoch()` first."
            )
        if run.open_epoch is None:
            self._batch_idx = 0
            self.trainer.current_epoch = epoch
            self._tell("on_train_epoch_start")
        run.enter_batch(Batch(None, epoch, self._batch_idx, {"": lambda: index}))
        self._tell("on_train_batch_start", None, self._batch_idx)
        try:
            with run.step():
                yield
        except BaseException:
            run.leave_batch()
            raise
        run.end_batch()
        self._tell("on_train_batch_end", None, None, self._batch_idx)
        self._batch_idx += 1

    def target(self, logits: Tensor, target: Tensor) -> Tensor:
        """The target of the open batch, where a criterion is no function of torch and no module; trackers see it too.

        Args:
            logits: (B, K).
            target: Given labels, int64 (B,), of which the callbacks make labels or soft targets (B, K).

        Raises:
            NoisyLabelError: The callbacks look at several criteria, or at none.
        """
        places = self._places
        if len(places) != 1:
            raise NoisyLabelError(f"The callbacks look at {len(places)} criteria: `target` is for one.")
        return places[0].target_of(logits, target)

    def update(self, logits: Tensor, target: Tensor, index: Tensor, epoch: int) -> Tensor:
        """:meth:`target` of a batch around which nothing else has to act: all that trackers need.

        Raises:
            NoisyLabelError: A callback changes the target, which a loss that is computed around it would not see.
        """
        with self.batch(index, epoch):
            changers = [str(place.members) for place in self._places if place.members.changers]
            if changers:
                raise NoisyLabelError(
                    f"`update` is for trackers, and {changers[0]} would change the target of a loss that is computed "
                    "already: use `with noisy.batch(index, epoch):` around the step."
                )
            return self.target(logits, target)

    def end_epoch(self) -> dict[str, float]:
        """End an epoch: the metrics of all callbacks. All processes call it, and rows are merged over them."""
        metrics = self._driver.state.close_epoch()
        self._tell("on_train_epoch_end")
        return metrics

    def share(self) -> None:
        """Bring what all processes know to rank 0 before it saves inside an epoch; all processes call it."""
        self._driver.state.share()

    def finish(self) -> None:
        """Training is over: nothing is left in the module, and a criterion that was never called is refused."""
        module: Any = self._module
        try:
            self._driver.state.finish()
            self._tell("on_train_end")
        finally:
            for callback in self.callbacks:
                callback.teardown(self.trainer, module, "fit")
            self._driver.state.end()
            for hook in self._hooks:
                hook.remove()
            self._begun = False

    def state_dict(self) -> dict[str, Any]:
        """What the callbacks know, loaded by ``torch.load(weights_only=True)``. Never a collective."""
        return {
            "run": self._driver.state_dict(),
            "callbacks": {callback.state_key: callback.state_dict() for callback in self.callbacks},
            "global_step": self.trainer.global_step,
            "batch_idx": self._batch_idx,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved state, before the first batch.

        Raises:
            NoisyLabelError: The loop has begun.
        """
        if self._begun:
            raise NoisyLabelError("The loop has begun: load its state before the first batch.")
        wanted = "what `state_dict` of a NoisyLoop gave, which may be one part of what was saved"
        check_argument({"run", "callbacks"} <= state.keys(), "state", wanted, f"the keys {', '.join(map(str, state))}")
        self._driver.load_state_dict(copy.deepcopy(state["run"]))
        for callback in self.callbacks:
            if callback.state_key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.state_key])
        self.trainer.global_step, self._batch_idx = state["global_step"], state["batch_idx"]
        self._fresh = False

    @property
    def _places(self) -> list[TargetPipeline]:
        return [place for place in self._driver.state.listeners if isinstance(place, TargetPipeline)]

    def _check_batch(self, index: object, epoch: object) -> None:
        fits = isinstance(index, Tensor) and index.dtype == torch.int64 and index.ndim == 1
        came = f"{index.dtype} {tuple(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
        check_argument(fits, "index", "positions in the training set, a tensor int64 (B,)", came)
        check_count(epoch, "epoch", least=0, most=sys.maxsize if self._max_epochs is None else self._max_epochs - 1)

    def _begin(self) -> None:
        run = self._driver.state
        for optimizer in self._optimizers:
            self._hooks.append(optimizer.register_step_pre_hook(self._before_step))
            self._hooks.append(optimizer.register_step_post_hook(self._after_step))
        self._tell("setup", "fit")
        self._tell("on_fit_start")
        run.origins = run.origins.following(self._train_set, None)
        device = next(self._module.parameters(), torch.empty(0)).device
        known = TrainingSet.of(self._train_set), known_labels(self._train_set)
        check_shards(run.sections.values(), loaders=[])
        run.begin(*known, self._fresh, device, self._seed, self._max_epochs)
        if run.open_epoch is not None:  # goes on inside an epoch
            self.trainer.current_epoch = run.open_epoch
        self._begun = True
        self._tell("on_train_start")

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The gradients are there, unless a closure brings them: then each call of it is a pass of its own."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._tell("on_before_optimizer_step", optimizer)
            return None
        others = {name: value for name, value in kwargs.items() if name != "closure"}
        return (args[0], partial(self._pass, optimizer, closure)), others

    def _pass(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Any:
        self._driver.state.open_batch.enter_step()
        loss = closure()
        self._tell("on_before_optimizer_step", optimizer)
        return loss

    def _after_step(self, *args: Any) -> None:
        self.trainer.global_step += 1

    def _tell(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self.trainer, self._module, *args)


def _with_criterion(module: nn.Module, criterion: nn.Module) -> nn.Module:
    """A module with the same parts and names, and the criterion beside them."""
    root = nn.Module()
    root._parameters = dict(module._parameters)
    root._modules = {**module._modules, "criterion": criterion}
    return root
