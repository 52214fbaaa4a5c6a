"""The pipeline at a criterion: given target -> changers -> final target, with observers.

One mechanism for our module and for foreign ones: a forward pre-hook on the criterion, or a mode that sees which
functions a step calls, so that nothing else of a project has to change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ref

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_noisy.data.batch import Batch, IndexKey
from lightning_noisy.errors import NoisyLabelError
from lightning_noisy.losses.class_weights import ChangedTarget
from lightning_noisy.state import RunState
from lightning_noisy.targets.aside import loss_aside
from lightning_noisy.targets.batch_check import BatchCheck
from lightning_noisy.targets.call import DrawingChanger, TargetCall, TargetChanger, TargetMixer, TargetObserver
from lightning_noisy.targets.called_rows import called_rows
from lightning_noisy.targets.criterion import try_soft_targets
from lightning_noisy.targets.functional_criterion import FunctionalCriterion
from lightning_noisy.targets.loss_context import missing_context, offered
from lightning_noisy.targets.members import TargetMembers, no_target
from lightning_noisy.targets.module_criterion import ModuleCriterion
from lightning_noisy.targets.signature import BoundCall


class TargetPipeline:
    """Changers and observers at one criterion.

    It acts inside training batches alone. The first call of the criterion in a batch counts; further calls of the same
    batch (a second optimizer pass, a second view) get the same target and write nothing. So the criterion is to be
    called with the whole batch, per sample; selection comes after it.

    Args:
        run: The run it acts in; it listens to its batches until the run ends.
        criterion: What is called with logits and target.
        root: The LightningModule, or the module that a loop of one's own trains.
    """

    def __init__(self, run: RunState, criterion: ModuleCriterion | FunctionalCriterion, root: nn.Module) -> None:
        self.run = run
        self.name = criterion.name
        """The criterion's name."""
        self.index_key: IndexKey = None
        """Where its members read the index."""
        self.check_labels = True
        """Whether the labels at the criterion are held to those of the samples that the index names."""
        self.features: Callable[[int], Tensor] | None = None
        """Gives what went into the classifier for so many rows, where somebody notes it."""
        self.place = criterion
        """What is called with logits and target."""
        self._root = ref(root)
        self.members = TargetMembers(criterion.name)
        """Who changes the target, and who looks."""
        self._batch: Batch | None = None
        self._check = BatchCheck(run, self.name)
        self._given: Tensor | None = None
        self._final: Tensor | None = None
        self._entered = self._weighs = False
        self._lacking: list[str] | None = None
        self._batches = self._calls = 0
        self._detach = self._attach()
        run.listeners.append(self)

    def _attach(self) -> Callable[[], None]:
        """Let calls of the criterion pass; what is returned ends it."""
        if isinstance(self.place, FunctionalCriterion):
            mode = self.place.mode(self._change)
            self.run.modes.append(mode)
            return partial(self.run.modes.remove, mode)
        pipeline, criterion = ref(self), self.place.reference
        module = criterion()
        assert module is not None

        def hook(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # Deep copies of the criterion carry the hook along, and it passes them by.
            alive = pipeline()
            return None if alive is None or called is not criterion() else alive._change(args, kwargs)

        return module.register_forward_pre_hook(hook, with_kwargs=True).remove

    @property
    def criterion(self) -> nn.Module | None:
        """The module; None when it is gone, and of a function."""
        return self.place.module

    def add_changer(self, changer: TargetChanger) -> None:
        """Append a changer.

        Raises:
            NoisyLabelError: A second one that replaces the target, or the criterion cannot take soft targets.
        """
        self.members.add_changer(changer, self.criterion)

    def add_observer(self, observer: TargetObserver) -> None:
        """Append an observer."""
        self.members.add_observer(observer)

    def enter_batch(self, batch: Batch) -> None:
        """A training batch begins."""
        self._given = self._final = None
        self._batch = batch
        if batch.batch_idx == 0:
            self._lacking = None

    def leave_batch(self) -> None:
        """The training batch was given up."""
        self._batch = self._given = self._final = None
        if self._entered:
            self.place.leave()
            self._entered = False

    def target_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """The final target for logits (B, K) and labels (B,) of the open batch, where no call can be reached."""
        final: Tensor = self._change((logits, target), {})[0][1]
        return final

    def end_batch(self) -> None:
        """The training batch has ended; a step may leave the criterion out."""
        self.leave_batch()
        self._batches += 1
        if self._batches == 1 and self._calls == 0 and self.members:
            rank_zero_warn(
                f"The first training step has not called `{self.name}`{self._hint}: {self.members} wait until one does."
            )

    def finish(self) -> None:
        """Training has come to its end. What is left after a resume may be the turn of another network.

        Raises:
            NoisyLabelError: No training step of a whole run has called the criterion.
        """
        if self.run.fresh and self._batches > 0 and self._calls == 0 and self.members:
            raise NoisyLabelError(
                f"No training step has called `{self.name}`{self._hint}, so {self.members} did nothing: name the "
                "criterion by `criterion`, a module or 'F.cross_entropy'."
            )

    def detach(self) -> None:
        """Take the hook off the criterion."""
        self.leave_batch()
        self._detach()

    @property
    def _hint(self) -> str:
        return "" if isinstance(self.place, ModuleCriterion) else " with logits that have a gradient"

    def _change(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._batch is None:
            return args, kwargs
        if self._lacking is None:
            self._lacking = missing_context(self.criterion, kwargs, features=self.features is not None)
            self._weighs = self.place.weighs_classes
        if not self._lacking and self._final is not None and not self.members.changers:
            return args, kwargs
        call = self.place.signature.bind(args, kwargs)
        context = self._context([name for name in self._lacking if name not in kwargs], self._batch, call.logits)
        if self._final is None:
            self._given, self._final = call.target, self._first(call, context, self._batch)
        else:
            self._check_repeated(call.target)
        if not self._lacking and not self.members.changers:
            return args, kwargs
        return call.with_target(self._final, **context)

    def _first(self, call: BoundCall, context: dict[str, Any], batch: Batch) -> Tensor:
        """The final target of the batch's first call."""
        if self._calls == 0 and (soft := self.members.soft):
            try_soft_targets(self.criterion, call, soft[0])
        self._calls += 1
        seen_by = zip(self.members.observers, self.members.intervals, strict=True)
        observers = [observer for observer, interval in seen_by if batch.batch_idx % interval == 0]
        if not self.members.changers and not observers:
            return call.target
        logits, given = call.logits.detach(), call.target
        index = self._check(batch, self._index(batch, logits), logits, given, self.check_labels)
        labels = given.long().clamp(0, logits.shape[1] - 1)
        seen = TargetCall(
            index,
            logits,
            labels,
            labels,
            batch.epoch,
            {**call.context, **context},
            source=call.logits,
            mix=self.members.mix if self.members.mixes else None,
            loss_of=partial(loss_aside, self.place, call, context),
        )
        with torch.no_grad():
            seen, unmixed = self._changed(seen)
            if seen.target is not labels and self._weighs:
                self.place.enter(ChangedTarget(seen.target, unmixed, labels, self.members.mix))
                self._entered = True
            for observer in observers:
                observer.observe_target(seen)
        return seen.target

    def _changed(self, call: TargetCall) -> tuple[TargetCall, Tensor]:
        """The call after all changers, and its target before samples were mixed."""
        unmixed = call.target
        for changer in self.members.changers:
            drawn_by = changer if isinstance(changer, DrawingChanger) else call.drawn_by
            before, version = call.target, call.target._version
            changed = changer.change_target(call)
            if before._version != version or not _is_target(changed, call):
                raise no_target(changer, changed, call)
            call = replace(call, target=changed, drawn_by=drawn_by)
            unmixed = unmixed if isinstance(changer, TargetMixer) else call.target
        return call, unmixed

    def _index(self, batch: Batch, logits: Tensor) -> Tensor:
        """The samples of a call; what the loader handed out goes to an accelerator without waiting for it."""
        index = called_rows(batch, self.index_key, len(logits), self.name)
        return index.to(logits.device, non_blocking=True)

    def _context(self, names: list[str], batch: Batch, logits: Tensor) -> dict[str, Any]:
        """What a loss of ours requires and the project does not pass."""
        if not names:
            return {}
        root = self._root()
        assert root is not None
        offers = offered(self.run, self.criterion, root, batch.epoch)
        offers["index"] = partial(self._index, batch, logits)
        if self.features is not None:
            offers["features"] = partial(self.features, len(logits))
        return {name: offers[name]() for name in names}

    def _check_repeated(self, given: Tensor) -> None:
        """A later call of a batch must be about the same labels, since it gets the same target."""
        assert self._given is not None
        same = given.shape == self._given.shape and (given == self._given).all()
        self.run.checks.require(
            torch.as_tensor(same),
            lambda: (
                f"`{self.name}` was called twice in a batch with different labels (mixup? a second head?): its target "
                "is changed once a batch; give the other use a criterion of its own."
            ),
        )


def _is_target(changed: object, call: TargetCall) -> bool:
    if not isinstance(changed, Tensor):
        return False
    soft = changed.is_floating_point() and changed.shape == call.logits.shape
    return soft or (changed.dtype == torch.int64 and changed.shape == call.given.shape)
